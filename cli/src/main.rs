//! The one binary: `streamspace up` runs everything, `api`, `worker` and `scheduler` run one role
//! each, and the other commands are for those who operate an installation or use one.

mod admin;
mod client;
mod command;
mod config;
mod console;
mod data_dir;
mod database;
mod doctor;
mod embedded;
mod failure;
mod first_start;
mod migrate;
mod postgres_tools;
mod private_file;
mod redis_ping;
mod roles;
mod settings;
mod signals;
mod up;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use self::command::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            console::say(format_args!("error: cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(cli.run());
    // A handler that ignores its cancellation must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome.unwrap_or_else(|error| {
        console::say(failure::render(&error));
        ExitCode::FAILURE
    })
}
