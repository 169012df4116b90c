//! Processes of `src/bin/fleet.rs`.

use std::time::Duration;

use nix::sys::signal::Signal;
use streamspace_testkit::{HostClock, Process, Program, eventually};

/// What a worker's jobs are leased for; a beat is a third of it.
pub const LEASE: Duration = Duration::from_secs(3);

/// A process of the fleet that is about to start.
#[derive(Debug, Clone)]
pub struct Role {
    program: Program,
    url: String,
}

impl Role {
    pub fn new(role: &str, url: &str, stage_url: &str) -> Self {
        let program = Program::new(env!("CARGO_BIN_EXE_fleet"))
            .named(role)
            .arg(role)
            .env("FLEET_DATABASE_URL", url)
            .env("FLEET_STAGE_URL", stage_url)
            .env("FLEET_LEASE_MS", LEASE.as_millis().to_string());
        Self { program, url: url.into() }
    }

    /// How many jobs it runs at once. One slot of it is kept for tenants with nothing running.
    pub fn concurrency(self, n: usize) -> Self {
        self.env("FLEET_CONCURRENCY", n.to_string())
    }

    /// How many threads its jobs share.
    pub fn threads(self, n: usize) -> Self {
        self.env("FLEET_HANDLER_THREADS", n.to_string())
    }

    /// How long a graceful stop lets jobs finish.
    pub fn patience(self, limit: Duration) -> Self {
        self.env("FLEET_PATIENCE_MS", limit.as_millis().to_string())
    }

    /// It is of this release, and knows the kinds of 2 and later only when it is.
    pub fn release(self, release: i64) -> Self {
        self.env("STREAMSPACE_TEST_RELEASE", release.to_string())
    }

    /// Its transactions go through a pooler; LISTEN and the engine's loops do not.
    pub fn behind(self, pooler: &str) -> Self {
        let direct = self.url.clone();
        self.env("FLEET_DATABASE_URL", pooler).env("FLEET_DIRECT_URL", direct)
    }

    pub fn redis(self, url: &str) -> Self {
        self.env("FLEET_REDIS_URL", url)
    }

    pub fn clock(mut self, clock: &HostClock) -> Self {
        self.program = self.program.with_faketime(clock);
        self
    }

    pub fn named(mut self, name: &str) -> Self {
        self.program = self.program.named(name);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.program = self.program.env(name, value);
        self
    }

    /// Starts it and waits until it works.
    pub async fn start(&self) -> Process {
        let process = self.spawn();
        process.line("fleet ready", Duration::from_secs(20)).await;
        process
    }

    /// Starts it, ready or not.
    pub fn spawn(&self) -> Process {
        self.program.start().expect("the fleet's binary starts")
    }
}

/// A counter of a process, summed over its labels; 0 when it was never touched.
pub async fn metric(process: &Process, name: &str) -> f64 {
    let asked = process.output().lines().filter(|line| line.starts_with("metrics end")).count();
    process.signal(Signal::SIGUSR1);
    eventually(Duration::from_secs(5), "the process tells its metrics", async || {
        let output = process.output();
        (output.lines().filter(|line| line.starts_with("metrics end")).count() > asked).then_some(())
    })
    .await;
    let output = process.output();
    let newest = output.rsplit("metrics begin").next().unwrap_or_default();
    let of_name = |line: &&str| line.starts_with(name) && line[name.len()..].starts_with([' ', '{']);
    newest.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
