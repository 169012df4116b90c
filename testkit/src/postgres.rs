//! A private PostgreSQL from the installed binaries.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::{Mutex, OnceCell};

use crate::{Process, Program, Scratch, free_port};

/// A server with its own data directory, on a loopback port and a socket.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    scratch: Scratch,
    options: Options,
    port: u16,
    process: Mutex<Process>,
    made: AtomicU64,
    template: OnceCell<()>,
}

/// What a test may ask of the server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether a commit waits for the disk. Off, a commit still survives the death of every process,
    /// and only not that of the machine, which no test kills.
    pub fsync: bool,
    /// Further `name=value` settings.
    pub settings: Vec<String>,
}

const TEMPLATE: &str = "migrated";
const PATIENCE: Duration = Duration::from_secs(30);

impl Postgres {
    pub async fn start(options: Options) -> Result<Self> {
        let bin = binaries()?;
        let scratch = Scratch::for_servers("postgres")?;
        let (status, said) = Program::new(bin.join("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
            .arg("-D")
            .arg(scratch.path().join("data"))
            .unprivileged()
            .run(PATIENCE * 2)
            .await?;
        ensure!(status.success(), "initdb failed:\n{said}");
        let mut refused = String::new();
        for _ in 0..5 {
            let port = free_port()?;
            match serve(&bin, &scratch, &options, port).await {
                Ok(process) => {
                    let process = Mutex::new(process);
                    let (made, template) = (AtomicU64::new(0), OnceCell::new());
                    return Ok(Self { bin, scratch, options, port, process, made, template });
                }
                Err(error) => refused = format!("{error:#}"),
            }
        }
        bail!("PostgreSQL does not start: {refused}")
    }

    /// The one of this test binary. Its databases are private, the server is not: who restarts it
    /// starts an own one.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_init(async || Self::start(Options::default()).await.expect("PostgreSQL starts")).await
    }

    /// Applies the migrations of a directory to the template that `database` copies; once, whoever
    /// asks first.
    pub async fn template(&self, migrations: &Path) -> Result<&Self> {
        let make = async || {
            self.execute(&format!("CREATE DATABASE {TEMPLATE}")).await?;
            let mut connection = PgConnection::connect(&self.url(TEMPLATE)).await?;
            Migrator::new(migrations).await?.run(&mut connection).await?;
            connection.close().await?;
            anyhow::Ok(())
        };
        self.template.get_or_try_init(make).await.context("making the template database")?;
        Ok(self)
    }

    /// A new database, a copy of the template where there is one. Costs milliseconds.
    pub async fn database(&self) -> Result<Database> {
        self.copy_of(if self.template.initialized() { TEMPLATE } else { "template1" }).await
    }

    /// A new database with nothing in it.
    pub async fn empty_database(&self) -> Result<Database> {
        self.copy_of("template1").await
    }

    async fn copy_of(&self, template: &str) -> Result<Database> {
        let name = format!("test_{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await?;
        let url = self.url(&name);
        Ok(Database { name, url, port: self.port, bin: self.bin.clone() })
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `psql`, `pg_dump` and the others of the same release.
    pub fn binaries(&self) -> &Path {
        &self.bin
    }

    pub fn socket_dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Ends all sessions at once and shuts down cleanly.
    pub async fn stop(&self) {
        let process = self.process.lock().await;
        process.signal(Signal::SIGINT);
        process.exited(PATIENCE).await;
    }

    /// As the out-of-memory killer does it: all backends die at once, the next start recovers.
    pub async fn crash(&self) {
        self.process.lock().await.kill9().await;
    }

    /// Stops it if it runs, and starts it on the same port with the same data.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await;
        let mut process = self.process.lock().await;
        // Backends of a crashed postmaster may take a moment to notice; it does not start before.
        let mut refused = String::new();
        for _ in 0..100 {
            match serve(&self.bin, &self.scratch, &self.options, self.port).await {
                Ok(started) => {
                    *process = started;
                    return Ok(());
                }
                Err(error) => refused = format!("{error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("PostgreSQL does not start again: {refused}")
    }

    async fn execute(&self, sql: &str) -> Result<()> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        connection.execute(AssertSqlSafe(sql)).await?;
        Ok(connection.close().await?)
    }
}

/// A database of a test; dropped with the value, whoever is still connected.
#[derive(Debug)]
pub struct Database {
    name: String,
    url: String,
    port: u16,
    bin: PathBuf,
}

impl Database {
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends the sessions in this database whose application name or last statement is `LIKE` the
    /// pattern, and says how many there were.
    pub async fn kill_backends(&self, like: &str) -> Result<usize> {
        let mut connection = PgConnection::connect(&self.url).await?;
        let killed: Vec<bool> = sqlx::query_scalar(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
               and (application_name like $1 or query like $1)",
        )
        .bind(like)
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        Ok(killed.len())
    }

    /// Shifts the database's own time: the setting is given to new sessions, and the old ones end.
    pub async fn shift_clock(&self, setting: &str, interval: &str) -> Result<()> {
        let mut connection = PgConnection::connect(&self.url).await?;
        let sql = format!("ALTER DATABASE {} SET {setting} = '{interval}'", self.name);
        connection.execute(AssertSqlSafe(sql)).await?;
        connection.close().await?;
        self.kill_backends("%").await?;
        Ok(())
    }

    /// Everyone who may log in.
    pub(crate) async fn roles(&self) -> Result<Vec<String>> {
        let mut connection = PgConnection::connect(&self.url).await?;
        let roles = sqlx::query_scalar("select rolname::text from pg_roles where rolcanlogin")
            .fetch_all(&mut connection)
            .await?;
        connection.close().await?;
        Ok(roles)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let mut dropdb = std::process::Command::new(self.bin.join("dropdb"));
        dropdb.args(["--force", "--if-exists", "--host=127.0.0.1", "--username=postgres"]);
        dropdb.arg(format!("--port={}", self.port)).arg(&self.name);
        // Whether it works is of no consequence: the server may be down, and goes with its files.
        let _ = dropdb.output();
    }
}

async fn serve(bin: &Path, scratch: &Scratch, options: &Options, port: u16) -> Result<Process> {
    let mut program = Program::new(bin.join("postgres"))
        .arg("-D")
        .arg(scratch.path().join("data"))
        .arg("-k")
        .arg(scratch.path())
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(["-c", "max_connections=400", "-c", "shared_buffers=128MB", "-c", "max_wal_size=2GB"])
        .args([
            "-c",
            "synchronous_commit=on",
            "-c",
            "log_min_messages=warning",
            "-c",
            "log_line_prefix=%m [%p] %d ",
        ])
        .arg("-c")
        .arg(if options.fsync { "fsync=on" } else { "fsync=off" });
    for setting in &options.settings {
        program = program.arg("-c").arg(setting);
    }
    // Asked to end at once rather than killed, so that it removes its shared memory.
    let process = program.unprivileged().death_signal("QUIT").start()?;
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let start = std::time::Instant::now();
    loop {
        if process.status().is_some() {
            bail!("postgres ended:\n{}", process.output());
        }
        match PgConnection::connect(&url).await {
            // Answering is not enough: another server may have taken the port.
            Ok(mut connection) => {
                let dir: String = sqlx::query_scalar("select current_setting('data_directory')")
                    .fetch_one(&mut connection)
                    .await?;
                connection.close().await?;
                ensure!(Path::new(&dir).starts_with(scratch.path()), "port {port} is another's");
                return Ok(process);
            }
            Err(error) if start.elapsed() > PATIENCE => {
                bail!("postgres does not answer: {error}\n{}", process.output())
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Of the newest release that is installed.
fn binaries() -> Result<PathBuf> {
    let releases = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = releases
        .filter(|entry| entry.path().join("bin/postgres").exists())
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .max();
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|dir| dir.join("postgres").exists())
    };
    newest
        .map(|(_, bin)| bin)
        .or_else(on_path)
        .context("PostgreSQL's server is not installed (Debian package `postgresql`)")
}
