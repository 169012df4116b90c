//! The PostgreSQL that `streamspace up` brings along: the machine's own binaries, our own child
//! process, our own data directory.
//!
//! It is reached only through a socket in a private directory, and the kernel vouches for who is at
//! the other end, so there is no password to keep. The server outlives a killed parent; the next
//! start adopts it. A clean shutdown ends it last, after the jobs are drained.

mod binaries;
mod cluster;
mod postmaster_pid;
mod provision;
mod server;
mod server_user;
mod settings;
mod socket;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use streamspace_common::Secret;
use tokio::{sync::oneshot, task::JoinHandle, time::sleep};
use tracing::{error, info};

pub use self::settings::APP;
use self::{
    cluster::Cluster,
    postmaster_pid::{Found, Status},
    server::Server,
    server_user::ServerUser,
    settings::{DATABASE, OWNER},
};
use crate::data_dir::{DataDir, Lock};

/// A server that ends by itself so often within a minute is not started again.
const RESTARTS: usize = 5;

/// The running server. Dropping it leaves the server running; `stop` ends it.
pub struct Embedded {
    address: Address,
    stop: oneshot::Sender<()>,
    watch: JoinHandle<Result<()>>,
}

/// How to reach an embedded server.
#[derive(Clone, Debug)]
pub struct Address {
    pub socket_dir: PathBuf,
}

impl Address {
    fn with(&self, role: &str, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(5432)
            .username(role)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }

    /// The same as a URL, for configuration. The folder's name needs no escapes: see `socket`.
    fn url(&self, role: &str) -> Secret<String> {
        let dir = self.socket_dir.display();
        format!("postgres://{role}@localhost:5432/{DATABASE}?host={dir}&sslmode=disable").into()
    }

    /// What migrates.
    pub fn owner_url(&self) -> Secret<String> {
        self.url(OWNER)
    }

    /// What the roles connect with.
    pub fn app_url(&self) -> Secret<String> {
        self.url(APP)
    }
}

impl Embedded {
    /// Starts or adopts the server of the data directory, and sees to its database and roles.
    pub async fn start(data_dir: &DataDir, _held: &Lock) -> Result<Self> {
        let cluster = Cluster::prepare(data_dir, ServerUser::find()?).await?;
        let server = Server::start(data_dir, &cluster).await?;
        let address = Address { socket_dir: server.socket_dir.clone() };
        provision::database_and_roles(&address).await?;
        let (stop, stopped) = oneshot::channel();
        let watch = tokio::spawn(watch(data_dir.clone(), cluster, server, stopped));
        Ok(Self { address, stop, watch })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns only when the server is gone for good: it ended again and again, or not for us.
    pub async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.watch).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => anyhow::anyhow!("PostgreSQL was stopped"),
            Err(panic) => anyhow::Error::new(panic).context("PostgreSQL is no longer watched"),
        }
    }

    pub async fn stop(self) -> Result<()> {
        // The watch has ended already if the server did.
        self.stop.send(()).ok();
        self.watch.await.context("PostgreSQL is no longer watched")?
    }
}

/// The address of the server that runs on a data directory now, without touching it.
pub fn running(data_dir: &DataDir) -> Option<Address> {
    match postmaster_pid::find(&data_dir.join("postgres")) {
        Found::Running(found) if found.status == Status::Ready => {
            Some(Address { socket_dir: found.socket_dir })
        }
        _ => None,
    }
}

/// Lets a server of the data directory roll back what is open and end, without waiting for it: for
/// when the person at the terminal does not want to wait.
pub fn ask_to_stop(data_dir: &DataDir) {
    if let Found::Running(found) = postmaster_pid::find(&data_dir.join("postgres")) {
        kill(found.pid, Signal::SIGINT).ok();
    }
}

/// Whether a server could be started on this machine.
pub fn check_programs() -> Result<()> {
    binaries::Binaries::newest().map(|_| ())
}

/// Starts the server again when it ends without being told to.
async fn watch(
    data_dir: DataDir,
    cluster: Cluster,
    mut server: Server,
    mut stop: oneshot::Receiver<()>,
) -> Result<()> {
    let mut ends: Vec<Instant> = Vec::new();
    loop {
        tokio::select! {
            // An owner that was dropped leaves the server to whoever adopts it.
            asked = &mut stop => return if asked.is_ok() { server.stop().await } else { Ok(()) },
            () = server.ended() => {}
        }
        ends.retain(|end| end.elapsed() < Duration::from_secs(60));
        ends.push(Instant::now());
        if ends.len() > RESTARTS {
            anyhow::bail!(
                "PostgreSQL ended {} times within a minute; see {}",
                ends.len(),
                log_dir(&cluster.dir).display()
            );
        }
        error!(
            "PostgreSQL ended by itself; starting it again (its messages: {})",
            log_dir(&cluster.dir).display()
        );
        sleep(Duration::from_millis(100)).await;
        server = Server::start(&data_dir, &cluster).await?;
        info!("PostgreSQL runs again");
    }
}

fn log_dir(cluster: &Path) -> PathBuf {
    cluster.join("log")
}
