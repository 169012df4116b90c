use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{Database, Process, Program, Scratch, free_port};

/// PgBouncer in transaction mode in front of one database: what breaks LISTEN, session settings and
/// prepared statements that a session is thought to keep.
#[derive(Debug)]
pub struct PgBouncer {
    url: String,
    process: Process,
    _scratch: Scratch,
}

impl PgBouncer {
    /// Few server connections, so that sessions are really shared.
    pub async fn start(database: &Database) -> Result<Self> {
        for _ in 0..5 {
            let (scratch, port) = (Scratch::for_servers("pgbouncer")?, free_port()?);
            if let Ok(process) = serve(database, port, &scratch).await {
                let url = format!("postgres://postgres@127.0.0.1:{port}/{}", database.name());
                return Ok(Self { url, process, _scratch: scratch });
            }
        }
        bail!("pgbouncer does not start (Debian package `pgbouncer`)")
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn output(&self) -> String {
        self.process.output()
    }
}

async fn serve(database: &Database, port: u16, scratch: &Scratch) -> Result<Process> {
    let ini = scratch.path().join("pgbouncer.ini");
    let users = scratch.path().join("users.txt");
    std::fs::write(
        &users,
        database.roles().await?.iter().fold(String::new(), |mut text, role| {
            let _ = writeln!(text, "\"{role}\" \"\"");
            text
        }),
    )
    .context("writing PgBouncer's users")?;
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = trust\nauth_file = {}\npool_mode = transaction\n\
         default_pool_size = 8\nmax_client_conn = 500\nignore_startup_parameters = extra_float_digits\n",
        database.port(),
        users.display(),
    );
    std::fs::write(&ini, text).context("writing PgBouncer's configuration")?;
    // Debian puts it where only root's PATH looks.
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
        .into_iter()
        .find(|path| std::fs::exists(path).unwrap_or(false));
    let process = Program::new(program.unwrap_or("pgbouncer")).arg(&ini).unprivileged().start()?;
    for _ in 0..2000 {
        if process.output().contains("process up") {
            return Ok(process);
        }
        if process.status().is_some() {
            bail!("pgbouncer ended:\n{}", process.output());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bail!("pgbouncer is not ready:\n{}", process.output())
}
