//! `streamspace doctor`: looks at an installation as a careful operator would, and says pass or fail
//! of each thing.

use std::{
    fmt::Display,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde::Deserialize;
use sqlx::{ConnectOptions, Connection, PgConnection};
use streamspace_common::{
    Config,
    sealed::{KeyFileError, MasterKeys},
};
use streamspace_queue::schema::{self, State};
use url::Url;
use uuid::Uuid;

use crate::{
    admin::keys::count_sealed,
    client, console,
    data_dir::DataDir,
    database::{self, Database},
    embedded, postgres_tools, redis_ping,
    settings::Settings,
};

#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    settings: Settings,
}

/// How long the API may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);

enum Finding {
    Pass(String),
    Fail(String),
    /// Not there, and need not be.
    Skip(String),
}

use Finding::{Fail, Pass, Skip};

#[derive(Default)]
struct Report {
    failed: usize,
}

impl Report {
    fn add(&mut self, subject: &str, finding: Finding) {
        let (word, text) = match finding {
            Pass(text) => ("pass", text),
            Fail(text) => {
                self.failed += 1;
                ("FAIL", text)
            }
            Skip(text) => ("skip", text),
        };
        console::result(format_args!("{word}  {subject:<16} {text}"));
    }
}

impl Doctor {
    pub async fn run(self) -> Result<()> {
        let mut report = Report::default();
        let config = self.settings.read()?;
        report.add("configuration", configuration(&config));
        report.add("data directory", data_directory(&config));
        report.add("master key", master_key(&config));
        report.add("programs", programs(&config).unwrap_or_else(failed));
        let keys = MasterKeys::load(&config.master_key_file()).ok();
        match database::with(&config, async |database: &Database| {
            look_into(database, keys.as_ref(), &mut report).await
        })
        .await
        {
            Ok(()) => {}
            Err(error) => report.add("database", failed(error)),
        }
        report.add("redis", redis(&config).await);
        report.add("api", api(&config).await);
        match report.failed {
            0 => Ok(()),
            1 => bail!("one check failed"),
            many => bail!("{many} checks failed"),
        }
    }
}

fn failed(error: anyhow::Error) -> Finding {
    Fail(error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

fn or_fail<E: Display>(finding: Result<Finding, E>) -> Finding {
    finding.unwrap_or_else(|error| Fail(error.to_string()))
}

fn configuration(config: &Config) -> Finding {
    let weak = config.weak_secrets();
    if weak.is_empty() {
        return Pass(format!("good, for {}", config.server.environment.as_str()));
    }
    Fail(weak.iter().map(|(key, problem)| format!("{key}: {problem}")).collect::<Vec<_>>().join("; "))
}

fn data_directory(config: &Config) -> Finding {
    let dir = &config.server.data_dir;
    match (DataDir::open(dir), config.database.is_configured()) {
        (Ok(dir), _) => Pass(dir.path().display().to_string()),
        (Err(_), true) => Skip(format!("{} does not exist; the database is elsewhere", dir.display())),
        (Err(_), false) => Fail(format!("{} does not exist: start `streamspace up` once", dir.display())),
    }
}

fn master_key(config: &Config) -> Finding {
    let file = config.master_key_file();
    match MasterKeys::load(&file) {
        Ok(keys) if keys.has_old() => Pass(format!(
            "{}, with older ones (`streamspace admin keys retire` drops them)",
            keys.current_id(),
        )),
        Ok(keys) => Pass(keys.current_id()),
        Err(KeyFileError::Missing { .. }) => Skip(format!("{} is made at the first start", file.display())),
        Err(error) => Fail(error.to_string()),
    }
}

fn programs(config: &Config) -> Result<Finding> {
    if !config.database.is_configured() {
        embedded::check_programs()?;
    }
    let clients = postgres_tools::find("pg_dump");
    let (major, path) = clients.last_key_value().context("pg_dump is not installed; backups need it")?;
    Ok(Pass(format!("PostgreSQL {major} in {}", path.parent().unwrap_or(path).display())))
}

async fn look_into(database: &Database, keys: Option<&MasterKeys>, report: &mut Report) -> Result<()> {
    let mut owner = database.connect().await?;
    report.add("database", server(&mut owner, database).await.unwrap_or_else(failed));
    let state = schema::state(&mut owner).await?;
    report.add(
        "schema",
        match state {
            State::Current => Pass(format!("{state}: {}", schema::known())),
            _ => Fail(state.to_string()),
        },
    );
    if state == State::Current {
        report.add("contents", or_fail(contents(&mut owner).await));
        if let Some(keys) = keys {
            report.add("stored secrets", stored_secrets(&mut owner, keys).await.unwrap_or_else(failed));
        }
        report.add("workers", or_fail(workers(&mut owner).await));
        report.add("rights", rights(database).await.unwrap_or_else(failed));
        report.add("reads and writes", reads_and_writes(database).await.unwrap_or_else(failed));
    }
    owner.close().await.ok();
    Ok(())
}

async fn server(owner: &mut PgConnection, database: &Database) -> Result<Finding> {
    let version: String = sqlx::query_scalar("show server_version").fetch_one(&mut *owner).await?;
    let durable: String = sqlx::query_scalar("show fsync").fetch_one(&mut *owner).await?;
    if durable != "on" {
        return Ok(Fail(format!("PostgreSQL {version} has fsync off: a power cut loses what was accepted")));
    }
    Ok(Pass(format!("PostgreSQL {version}, {}", if database.is_embedded { "embedded" } else { "your own" })))
}

async fn contents(owner: &mut PgConnection) -> sqlx::Result<Finding> {
    let (tenants, users, keys): (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from tenants where slug <> 'platform'), (select count(*) from users),
                (select count(*) from api_keys where active)",
    )
    .fetch_one(owner)
    .await?;
    Ok(Pass(format!("{tenants} tenants, {users} users, {keys} active API keys")))
}

async fn stored_secrets(owner: &mut PgConnection, keys: &MasterKeys) -> Result<Finding> {
    Ok(match count_sealed(owner, keys).await? {
        (all, 0) => Pass(format!("{all}, all opened by the master key")),
        (all, lost) => Fail(format!(
            "{lost} of {all} were sealed under a key that is not in the master key file: put the old file back"
        )),
    })
}

async fn workers(owner: &mut PgConnection) -> sqlx::Result<Finding> {
    let (alive, waiting): (i64, bool) = sqlx::query_as(
        "select (select count(*) from workers where beat_at > queue.now() - interval '30 s'),
                exists (select from jobs where state = 'queued')",
    )
    .fetch_one(owner)
    .await?;
    Ok(match (alive, waiting) {
        (0, true) => Fail("jobs wait and no worker is alive".to_owned()),
        (0, false) => Skip("none is alive, and no job waits".to_owned()),
        _ => Pass(format!("{alive} alive")),
    })
}

/// That the application can do what it must, and cannot do what it must not.
async fn rights(database: &Database) -> Result<Finding> {
    let app = database::options(&database.app_url)?;
    let role = app.get_username().to_owned();
    let mut app = app.connect().await.context("the application cannot connect")?;
    let (owns, works, rewrites): (bool, bool, bool) = sqlx::query_as(
        "select pg_has_role(relowner, 'usage'), has_table_privilege('jobs', 'insert'),
                has_table_privilege('audit', 'update') or has_table_privilege('audit', 'delete')
                or has_schema_privilege('public', 'create')
         from pg_class where oid = 'jobs'::regclass",
    )
    .fetch_one(&mut app)
    .await?;
    app.close().await.ok();
    Ok(match (owns, works, rewrites) {
        (true, ..) => Skip(format!(
            "{role} owns the schema; roles may run as one that does not (`streamspace migrate --app-role …`)"
        )),
        (false, false, _) => {
            Fail(format!("{role} may not write: run `streamspace migrate --app-role {role}`"))
        }
        (false, true, true) => Fail(format!("{role} may change the audit or the schema")),
        (false, true, false) => Pass(format!("{role} reads and writes rows, and the audit only grows")),
    })
}

/// As the application: a row is written and read, and taken back.
async fn reads_and_writes(database: &Database) -> Result<Finding> {
    let app = database::options(&database.app_url)?;
    let started = Instant::now();
    let mut app = app.connect().await.context("the application cannot connect")?;
    let mut tx = app.begin().await?;
    let written = Uuid::new_v4();
    sqlx::query("insert into leases (name, boot_id, until) values ($1, $2, now())")
        .bind(format!("doctor-{written}"))
        .bind(written)
        .execute(&mut *tx)
        .await
        .context("cannot write")?;
    let read: Uuid = sqlx::query_scalar("select boot_id from leases where name = $1")
        .bind(format!("doctor-{written}"))
        .fetch_one(&mut *tx)
        .await
        .context("cannot read what was written")?;
    tx.rollback().await.context("cannot roll back")?;
    app.close().await.ok();
    Ok(match read == written {
        true => Pass(format!("in {} ms", started.elapsed().as_millis())),
        false => Fail("what was read is not what was written".to_owned()),
    })
}

async fn redis(config: &Config) -> Finding {
    match &config.redis.url {
        None => Skip("not configured; live events go by NOTIFY".to_owned()),
        Some(url) => match redis_ping::ping(url).await {
            Ok(()) => Pass("answers".to_owned()),
            Err(error) => failed(error),
        },
    }
}

/// Whether the API serves. It need not run, but what listens on its port must be it.
async fn api(config: &Config) -> Finding {
    if config.server.port == 0 {
        return Skip("on a port that is chosen at each start".to_owned());
    }
    let host = match config.server.host {
        host if host.is_unspecified() => "localhost".to_owned(),
        IpAddr::V6(host) => format!("[{host}]"),
        host => host.to_string(),
    };
    let at = format!("{host}:{}", config.server.port);
    match health(&at).await {
        Ok(None) => Skip(format!("does not run on {at}")),
        Ok(Some(Health { status, version })) if status == "healthy" => {
            Pass(format!("release {version} serves on {at}"))
        }
        Ok(Some(Health { status, version })) => {
            Fail(format!("release {version} on {at} is {status}; http://{at}/health says what of it"))
        }
        Err(error) => failed(error),
    }
}

#[derive(Deserialize)]
struct Health {
    status: String,
    version: String,
}

/// `None` if nothing listens there.
async fn health(at: &str) -> Result<Option<Health>> {
    let url = Url::parse(&format!("http://{at}/health")).context("server.host makes no URL")?;
    let request = client::http(&url)?.get(url).timeout(PATIENCE);
    let response = match request.send().await {
        Err(error) if error.is_connect() => return Ok(None),
        sent => sent.with_context(|| format!("what listens on {at} does not answer"))?,
    };
    let health = response.json().await;
    health.map(Some).map_err(|_| anyhow!("what listens on {at} is not StreamSpace"))
}
