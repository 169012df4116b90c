//! A data directory and the processes that work on it.

use std::{fs, path::PathBuf, process::ExitStatus, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use streamspace_testkit::{Process, Program, Scratch};
use tokio::sync::OnceCell;

pub const DEADLINE: Duration = Duration::from_secs(60);

/// One installation with an embedded database. Its server ends with it.
pub struct Installation {
    _scratch: Scratch,
    pub dir: PathBuf,
}

pub fn streamspace() -> Program {
    Program::new(env!("CARGO_BIN_EXE_streamspace"))
        .env("STREAMSPACE_SERVER_PORT", "0")
        .env("STREAMSPACE_SERVER_ADMIN_PORT", "0")
}

impl Installation {
    /// One that was started before. Making PostgreSQL's files takes most of a first start, so they
    /// are made once and copied.
    pub async fn new(name: &str) -> Self {
        static TEMPLATE: OnceCell<Installation> = OnceCell::const_new();
        let template = TEMPLATE
            .get_or_init(async || {
                let template = Self::at("template", "data");
                let up = template.up().await;
                up.term();
                assert!(up.exited(DEADLINE).await.success(), "{}", up.output());
                template
            })
            .await;
        let installation = Self::at(name, "data");
        let copy = Program::new("/bin/cp").arg("-a").arg(&template.dir).arg(&installation.dir);
        let (status, output) = copy.run(DEADLINE).await.unwrap();
        assert!(status.success(), "{output}");
        installation
    }

    /// One that was never started.
    pub fn fresh(name: &str) -> Self {
        Self::at(name, "data")
    }

    pub fn at(name: &str, dir: &str) -> Self {
        let scratch = Scratch::for_servers(name).unwrap();
        let dir = scratch.path().join(dir);
        Self { _scratch: scratch, dir }
    }

    /// A command on the data directory.
    pub fn command(&self, args: &[&str]) -> Program {
        streamspace().args(args).arg("--data-dir").arg(&self.dir)
    }

    pub async fn run(&self, args: &[&str]) -> (ExitStatus, String) {
        self.command(args).run(DEADLINE).await.unwrap()
    }

    pub async fn up(&self) -> Process {
        let process = self.command(&["up"]).start().unwrap();
        process.line("runs at", DEADLINE).await;
        process
    }

    pub fn postmaster(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.dir.join("postgres/postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok().map(Pid::from_raw)
    }

    pub fn kill_postmaster(&self) {
        if let Some(pid) = self.postmaster() {
            kill(pid, Signal::SIGKILL).ok();
        }
    }

    /// Of the server that runs.
    pub fn socket_dir(&self) -> PathBuf {
        let text = fs::read_to_string(self.dir.join("postgres/postmaster.pid")).unwrap();
        text.lines().nth(4).unwrap().into()
    }

    /// As the owner of the schema.
    pub async fn connect(&self) -> PgConnection {
        let options = PgConnectOptions::new_without_pgpass().socket(self.socket_dir()).port(5432);
        PgConnection::connect_with(&options.username("streamspace_owner").database("streamspace"))
            .await
            .unwrap()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.kill_postmaster();
    }
}
