//! The installation's database, for a command that is none of its roles.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use streamspace_common::{Config, Secret};
use streamspace_queue::{Db, DbOptions, Listen, Queue, QueueOptions, Release};
use tokio::time::sleep;

use crate::{
    data_dir::DataDir,
    embedded::{self, Address, Embedded},
    failure::Advice,
};

/// How long a start of `streamspace up` may take to open the database that a command waits for.
const STARTING: Duration = Duration::from_secs(30);

pub struct Database {
    /// Who owns the schema, past a pooler if there is one.
    pub owner_url: Secret<String>,
    /// Who else uses it.
    pub app_role: Option<String>,
    /// What the roles connect with.
    pub app_url: Secret<String>,
    /// Their way past a pooler.
    app_direct_url: Option<Secret<String>>,
    pub is_embedded: bool,
}

impl Database {
    /// The database that is configured; none means the embedded one.
    pub fn configured(config: &Config) -> Result<Option<Self>> {
        let (Some(app_url), Some(owner_url)) = (config.database.url(), config.database.direct_url()) else {
            return Ok(None);
        };
        let (app, owner) = (options(&app_url)?, options(&owner_url)?);
        let is_another = app.get_username() != owner.get_username();
        // What the owner connects with is no way for the roles: they would have the owner's rights.
        let app_direct_url = config.database.direct_url.clone().filter(|_| !is_another);
        let app_role = is_another.then(|| app.get_username().to_owned());
        Ok(Some(Self { owner_url, app_role, app_url, app_direct_url, is_embedded: false }))
    }

    pub fn embedded(address: &Address) -> Self {
        Self {
            owner_url: address.owner_url(),
            app_role: Some(embedded::APP.to_owned()),
            app_url: address.app_url(),
            app_direct_url: None,
            is_embedded: true,
        }
    }

    pub fn owner(&self) -> Result<PgConnectOptions> {
        options(&self.owner_url)
    }

    /// Connections as the application, shown under this name by `pg_stat_activity`.
    pub fn db(&self, application: &str, max_connections: u32) -> Result<Db> {
        let options = DbOptions {
            url: self.app_url.expose().clone(),
            direct_url: self.app_direct_url.as_ref().map(|url| url.expose().clone()),
            max_connections,
            application: application.to_owned(),
        };
        Db::new(&options).context("the database's URL cannot be read")
    }

    /// For operations of the domain: as the application, hearing nothing.
    pub fn queue(&self) -> Result<Queue> {
        let db = self.db("streamspace admin", 2)?;
        let options =
            QueueOptions { release: Release::current(), listen: Listen::default(), redis_url: None };
        Ok(Queue::start(db, options)?)
    }

    pub async fn connect(&self) -> Result<PgConnection> {
        self.owner()?.connect().await.map_err(unreachable)
    }
}

pub fn unreachable(error: sqlx::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(Advice::new(
        "the database cannot be reached",
        "see that it runs and that database.url is right (`streamspace config show`)",
    ))
}

pub fn options(url: &Secret<String>) -> Result<PgConnectOptions> {
    url.expose().parse().context("the database's URL cannot be read")
}

/// Does something with the database, running or not: an embedded one that does not run is started
/// for this long.
pub async fn with<T>(config: &Config, work: impl AsyncFnOnce(&Database) -> Result<T>) -> Result<T> {
    if let Some(database) = Database::configured(config)? {
        return work(&database).await;
    }
    let data_dir = DataDir::open(&config.server.data_dir)?;
    let deadline = Instant::now() + STARTING;
    let lock = loop {
        if let Some(address) = embedded::running(&data_dir) {
            return work(&Database::embedded(&address)).await;
        }
        match data_dir.lock() {
            Ok(lock) => break lock,
            Err(held) if Instant::now() > deadline => return Err(held),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    let server = Embedded::start(&data_dir, &lock).await?;
    let outcome = work(&Database::embedded(server.address())).await;
    server.stop().await?;
    outcome
}
