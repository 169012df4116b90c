//! Processor time: unlike the time on the wall it does not depend on who else uses the machine.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::PgConnection;

/// What a process has used.
pub fn of(pid: &str) -> Result<Duration> {
    let [user, system, ..] = stat(pid)?.1;
    Ok(ticks(user + system))
}

/// The server's first process, by what it says of itself.
pub async fn postmaster(connection: &mut PgConnection) -> Result<u32> {
    let file: String =
        sqlx::query_scalar("select pg_read_file('postmaster.pid')").fetch_one(connection).await?;
    Ok(file.lines().next().context("the server's pid")?.trim().parse()?)
}

/// What the server has used: its processes, and those that ended.
fn of_server(postmaster: u32) -> Result<Duration> {
    let [user, system, ended_user, ended_system] = stat(&postmaster.to_string())?.1;
    let mut used = user + system + ended_user + ended_system;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else { continue };
        // One that has just ended counts among its parent's.
        if let Ok((parent, [user, system, ..])) = stat(pid)
            && parent == postmaster
        {
            used += user + system;
        }
    }
    Ok(ticks(used))
}

/// Measures a process and the server from its making on.
pub struct Meter {
    pid: String,
    postmaster: u32,
    before: Used,
}

/// Processor time of a process, and of the server.
#[derive(Clone, Copy)]
pub struct Used {
    own: Duration,
    server: Duration,
}

impl Meter {
    /// Of this process.
    pub fn start(postmaster: u32) -> Result<Self> {
        Self::of("self", postmaster)
    }

    pub fn of(pid: &str, postmaster: u32) -> Result<Self> {
        let before = Used { own: of(pid)?, server: of_server(postmaster)? };
        Ok(Self { pid: pid.to_owned(), postmaster, before })
    }

    pub fn used(&self) -> Result<Used> {
        let own = of(&self.pid)?.saturating_sub(self.before.own);
        Ok(Used { own, server: of_server(self.postmaster)?.saturating_sub(self.before.server) })
    }
}

impl Used {
    /// Microseconds of both for each of so many jobs.
    pub fn per_job(self, jobs: u64) -> (f64, f64) {
        let each = |used: Duration| used.as_secs_f64() * 1e6 / jobs.max(1) as f64;
        (each(self.own), each(self.server))
    }
}

/// Jobs or requests per second, and the microseconds of processor time that each cost the process that
/// does them and the server.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub rate: f64,
    pub own: f64,
    pub server: f64,
}

/// The parent, and the ticks used: by it in its own code and in the kernel, by its ended children.
fn stat(pid: &str) -> Result<(u32, [u64; 4])> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold blanks; it ends with the last parenthesis.
    let fields: Vec<&str> = text.rsplit_once(')').context("a process's name")?.1.split_whitespace().collect();
    let number =
        |at: usize| fields.get(at).and_then(|field| field.parse().ok()).context("a process's figures");
    Ok((u32::try_from(number(1)?)?, [number(11)?, number(12)?, number(13)?, number(14)?]))
}

fn ticks(ticks: u64) -> Duration {
    // USER_HZ is 100 wherever Linux runs.
    Duration::from_millis(ticks * 10)
}

/// Resident memory of a process, in bytes.
pub fn memory_of(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("a process's memory")?;
    let kib: u64 = line.split_whitespace().nth(1).context("a figure")?.parse()?;
    Ok(kib * 1024)
}
