//! The commands, and which module does each.

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    admin::Admin,
    client,
    config::ConfigCommand,
    console,
    doctor::Doctor,
    migrate,
    roles::{Role, Roles},
    settings::{Listening, NoFlags, Working},
    up,
};

/// Containerised applications in the browser, and the control plane for those who operate them.
#[derive(Parser)]
#[command(name = "streamspace", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process, with a PostgreSQL of its own unless a database is configured.
    Up(up::Up),
    /// Run the HTTP API.
    Api(Role<Listening>),
    /// Run a worker: it executes jobs.
    Worker(Role<Working>),
    /// Run a scheduler: it starts jobs at their times.
    Scheduler(Role<NoFlags>),
    /// Bring the database to this release's schema.
    Migrate(migrate::Migrate),
    /// What is configured, and what is wrong with it.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check an installation: pass or fail of each part.
    Doctor(Doctor),
    /// Operate an installation: backups, keys, tenants.
    #[command(subcommand)]
    Admin(Admin),
    #[command(flatten)]
    Client(client::Command),
    /// Print the completion script for a shell.
    Completions { shell: Shell },
    /// Print the description of the API, as OpenAPI 3.1.
    Openapi,
    /// Print who may do what, as Markdown.
    Permissions,
    /// Print the version.
    Version,
}

impl Cli {
    pub async fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Up(command) => command.run().await,
            Command::Api(role) => role.run(Roles::API).await,
            Command::Worker(role) => role.run(Roles::WORKER).await,
            Command::Scheduler(role) => role.run(Roles::SCHEDULER).await,
            Command::Migrate(command) => done(command.run().await),
            Command::Config(command) => done(command.run()),
            Command::Doctor(command) => done(command.run().await),
            Command::Admin(command) => done(command.run().await),
            Command::Client(command) => command.run().await,
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "streamspace", &mut script);
                console::result_text(&String::from_utf8_lossy(&script));
                Ok(ExitCode::SUCCESS)
            }
            Command::Openapi => {
                console::result_text(&streamspace_api::openapi_json());
                Ok(ExitCode::SUCCESS)
            }
            Command::Permissions => {
                console::result_text(&streamspace_api::permissions_md());
                Ok(ExitCode::SUCCESS)
            }
            Command::Version => {
                console::result(format_args!("streamspace {}", env!("CARGO_PKG_VERSION")));
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn done(outcome: Result<()>) -> Result<ExitCode> {
    outcome.map(|()| ExitCode::SUCCESS)
}
