//! `make bench`: measures the job engine and who may come to it against references in the same run, and prints one table.
//!
//! Only ratios are worth comparing: the machine may be busy, so what is compared takes turns in
//! short rounds and the median counts. Nothing here can fail a build.

mod bare;
mod cpu;
mod engine;
mod http;
mod kinds;
mod load;
mod people;
mod process;
mod rounds;
mod rows;
mod stage;
mod table;

use std::time::Instant;

use anyhow::Result;
use clap::Parser;

use crate::{stage::Turn, table::render};

/// Measures the job engine, and what it costs to know who asks; prints one table.
#[derive(Parser)]
struct Args {
    /// What to measure; everything when none is named.
    names: Vec<String>,
    /// Fewer and shorter rounds: for a first look.
    #[arg(long)]
    quick: bool,
}

const SUBJECTS: [&str; 11] = [
    "throughput",
    "latency",
    "enqueue",
    "history",
    "lanes",
    "blocked",
    "cancel",
    "api",
    "identity",
    "idle",
    "memory",
];

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    log_to_nowhere()?;
    if process::play(&args.names).await? {
        return Ok(());
    }
    if let Some(unknown) = args.names.iter().find(|name| !SUBJECTS.contains(&name.as_str())) {
        anyhow::bail!("nothing is called {unknown:?}; there are {}", SUBJECTS.join(", "));
    }
    let began = Instant::now();
    let postgres = stage::server().await?;
    let turn = Turn::new(args.quick);
    let mut rows = Vec::new();
    for subject in
        SUBJECTS.into_iter().filter(|name| args.names.is_empty() || args.names.iter().any(|n| n == name))
    {
        say(&format!("{:>4.0} s  {subject}", began.elapsed().as_secs_f64()));
        rows.extend(match subject {
            "throughput" => rows::throughput::measure(&postgres, turn).await?,
            "latency" => rows::latency::measure(&postgres, turn).await?,
            "enqueue" => rows::enqueue::measure(&postgres, turn).await?,
            "history" => rows::history::measure(&postgres, turn).await?,
            "lanes" => rows::lanes::measure(&postgres, turn).await?,
            "blocked" => rows::blocked::measure(&postgres, turn).await?,
            "cancel" => rows::cancel::measure(&postgres, turn).await?,
            "api" => rows::api::measure(&postgres, turn).await?,
            "identity" => rows::identity::measure(&postgres, turn).await?,
            "idle" => rows::idle::measure(&postgres, turn).await?,
            "memory" => rows::memory::measure(&postgres, turn).await?,
            _ => unreachable!("subjects are listed above"),
        });
    }
    print(&render(&rows));
    Ok(())
}

/// A worker logs each job and counts it; what that costs belongs to the measurement, what it says
/// does not.
fn log_to_nowhere() -> Result<()> {
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    let log = tracing_subscriber::fmt().with_writer(nowhere).json().flatten_event(true).with_span_list(false);
    log.with_max_level(tracing_subscriber::filter::LevelFilter::INFO).init();
    let metrics = streamspace_common::telemetry::metrics();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            metrics.fold();
        }
    });
    Ok(())
}

#[expect(clippy::print_stderr, reason = "progress, for whoever waits")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn print(text: &str) {
    println!("\n{text}");
}
