//! One running PostgreSQL: started by us, or found running.

use std::{
    fs::{self, File},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{process::Child, time::sleep};
use tracing::{info, warn};

use super::{
    cluster::Cluster,
    postmaster_pid::{self, Found, Status},
    socket,
};
use crate::{data_dir::DataDir, failure::Advice};

/// Recovery after a crash reads what was written since the last checkpoint: seconds, and on a slow
/// disk a few minutes.
const START_LIMIT: Duration = Duration::from_secs(300);
/// A server with clients that do not let go is first asked, then told, then ended.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const KILL_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

pub struct Server {
    pid: Pid,
    /// None: adopted, so that it is no child of ours.
    child: Option<Child>,
    pub socket_dir: PathBuf,
}

impl Server {
    /// Adopts the server that runs on the cluster, or starts one; it answers when this returns.
    pub async fn start(data_dir: &DataDir, cluster: &Cluster) -> Result<Self> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match postmaster_pid::find(&cluster.dir) {
                Found::Running(found) if found.status == Status::Ready => {
                    info!(
                        "adopted the PostgreSQL that an earlier process left running as process {}",
                        found.pid
                    );
                    return Ok(Self { pid: found.pid, child: None, socket_dir: found.socket_dir });
                }
                Found::Running(found) if Instant::now() > deadline => bail!(
                    "PostgreSQL runs on {} as process {}, and neither became ready nor ended in {} s",
                    cluster.dir.display(),
                    found.pid,
                    START_LIMIT.as_secs()
                ),
                // It recovers, or it goes down; wait for what comes of it.
                Found::Running(_) => sleep(POLL).await,
                Found::Stale => {
                    // Safe: we hold the data directory, and the server checks its shared memory too.
                    let path = postmaster_pid::path(&cluster.dir);
                    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
                }
                Found::Nothing => return Self::launch(data_dir, cluster, deadline).await,
            }
        }
    }

    async fn launch(data_dir: &DataDir, cluster: &Cluster, deadline: Instant) -> Result<Self> {
        cluster.configure()?;
        let socket_dir = socket::prepare(data_dir, &cluster.user)?;
        socket::remove_left_over(&socket_dir);
        let start_log = data_dir.join("postgres-start.log");
        loop {
            let mut child = spawn(cluster, &socket_dir, &start_log)?;
            let pid = Pid::from_raw(
                child.id().and_then(|id| id.try_into().ok()).context("PostgreSQL has no process id")?,
            );
            if wait_until_ready(&mut child, cluster, pid, deadline).await? {
                return Ok(Self { pid, child: Some(child), socket_dir });
            }
            let said = fs::read_to_string(&start_log).unwrap_or_default();
            // Processes of a server that was killed itself take a moment to see it and end.
            let lingering = said.contains("still in use") && Instant::now() < deadline;
            if !lingering {
                return Err(Advice::new(
                    format!(
                        "PostgreSQL did not start on {}:\n{}",
                        cluster.dir.display(),
                        complaints(&said, &cluster.dir)
                    ),
                    format!(
                        "its messages are in {} and {}",
                        start_log.display(),
                        cluster.dir.join("log").display()
                    ),
                )
                .into());
            }
            sleep(POLL * 10).await;
        }
    }

    /// Returns when the server ends by itself.
    pub async fn ended(&mut self) {
        match &mut self.child {
            Some(child) => {
                child.wait().await.ok();
            }
            None => {
                while postmaster_pid::is_alive(self.pid) {
                    sleep(POLL * 5).await;
                }
            }
        }
    }

    /// Rolls back what is open, writes everything to its place and ends.
    pub async fn stop(mut self) -> Result<()> {
        for (signal, limit) in
            [(Signal::SIGINT, STOP_LIMIT), (Signal::SIGQUIT, KILL_LIMIT), (Signal::SIGKILL, KILL_LIMIT)]
        {
            if signal != Signal::SIGINT {
                warn!("PostgreSQL did not stop in time; sending it {signal}");
            }
            let gone = kill(self.pid, signal).is_err();
            if gone || tokio::time::timeout(limit, self.ended()).await.is_ok() {
                // It has taken its socket along, unless it was killed.
                fs::remove_dir(&self.socket_dir).ok();
                return Ok(());
            }
        }
        bail!("PostgreSQL, process {}, does not end", self.pid)
    }
}

fn spawn(cluster: &Cluster, socket_dir: &Path, start_log: &Path) -> Result<Child> {
    let log = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(start_log)
        .with_context(|| format!("cannot write {}", start_log.display()))?;
    let program = cluster.binaries.program("postgres");
    cluster
        .user
        .command(&program)
        .current_dir(&cluster.dir)
        .arg("-D")
        .arg(&cluster.dir)
        .args(["-c", "listen_addresses="])
        .args(["-c", "port=5432", "-c", "unix_socket_permissions=0700"])
        .arg("-c")
        .arg(format!("unix_socket_directories={}", socket_dir.display()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot open the log twice")?)
        .stderr(log)
        // The terminal's Ctrl-C is for us: the server must outlive the jobs that we drain.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))
}

/// False if it ended instead.
async fn wait_until_ready(child: &mut Child, cluster: &Cluster, pid: Pid, deadline: Instant) -> Result<bool> {
    let started = Instant::now();
    let mut told = 0;
    loop {
        if child.try_wait().context("cannot watch PostgreSQL")?.is_some() {
            return Ok(false);
        }
        if let Found::Running(found) = postmaster_pid::find(&cluster.dir)
            && found.pid == pid
            && found.status == Status::Ready
        {
            return Ok(true);
        }
        if Instant::now() > deadline {
            child.start_kill().ok();
            bail!(
                "PostgreSQL was not ready after {} s; its messages are in {}",
                START_LIMIT.as_secs(),
                cluster.dir.join("log").display()
            );
        }
        if started.elapsed().as_secs() / 5 > told {
            told = started.elapsed().as_secs() / 5;
            info!("PostgreSQL recovers what was not yet in its place, {} s so far", told * 5);
        }
        sleep(POLL).await;
    }
}

/// What the server itself calls wrong, from the start's own output or from its log.
fn complaints(start_log: &str, cluster: &Path) -> String {
    let newest = fs::read_dir(cluster.join("log"))
        .into_iter()
        .flatten()
        .flatten()
        .max_by_key(|entry| entry.metadata().and_then(|metadata| metadata.modified()).ok())
        .and_then(|entry| fs::read_to_string(entry.path()).ok())
        .unwrap_or_default();
    let newest = newest.rsplit_once("starting PostgreSQL").map_or("", |(_, this_start)| this_start);
    for text in [start_log, newest] {
        let mut lines = text
            .lines()
            .filter(|line| [" FATAL: ", " PANIC: ", " ERROR: "].iter().any(|level| line.contains(level)));
        if let Some(last) = lines.next_back() {
            let advice = text.lines().skip_while(|line| *line != last).skip(1);
            let advice =
                advice.take_while(|line| [" DETAIL: ", " HINT: "].iter().any(|level| line.contains(level)));
            return std::iter::once(last).chain(advice).collect::<Vec<_>>().join("\n");
        }
    }
    start_log.trim().to_owned()
}
