//! `streamspace migrate`: brings the database to this release's schema.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use sqlx::{migrate::Migrator, postgres::PgConnectOptions};
use streamspace_common::Config;
use streamspace_queue::schema::{self, MIGRATOR, Options};

use crate::{
    console,
    data_dir::DataDir,
    embedded::{self, Embedded},
    failure::Advice,
    settings::Settings,
};

#[derive(Args)]
pub struct Migrate {
    /// The role that the API, workers and schedulers connect as: it gets rights to rows, not to
    /// tables. By default that of database.url, if database.direct_url is another's
    #[arg(long, value_name = "ROLE")]
    app_role: Option<String>,
    /// Only say what there is to do; fails if there is something
    #[arg(long)]
    check: bool,
    /// Migrations besides our own, for tests of migrating
    #[arg(long, value_name = "DIR", hide = true, env = "STREAMSPACE_TEST_MIGRATIONS")]
    with: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Migrate {
    pub async fn run(self) -> Result<()> {
        let config = self.settings.load()?;
        if config.database.is_configured() {
            let (owner, app_role) = roles_of(&config)?;
            return self.migrate(&owner, self.app_role.as_deref().or(app_role.as_deref())).await;
        }
        let data_dir = DataDir::open(&config.server.data_dir)?;
        if let Some(address) = embedded::running(&data_dir) {
            return self.migrate(&address.owner(), Some(embedded::APP)).await;
        }
        let lock = data_dir.lock()?;
        let server = Embedded::start(&data_dir, &lock).await?;
        let migrated = self.migrate(&server.address().owner(), Some(embedded::APP)).await;
        server.stop().await?;
        migrated
    }

    async fn migrate(&self, owner: &PgConnectOptions, app_role: Option<&str>) -> Result<()> {
        if self.check {
            return check(owner).await;
        }
        let more = match &self.with {
            Some(dir) => {
                Some(Migrator::new(dir.as_path()).await.context("cannot read the additional migrations")?)
            }
            None => None,
        };
        let all = MIGRATOR.iter().chain(more.iter().flat_map(Migrator::iter)).cloned().collect();
        let migrator = Migrator::with_migrations(all);
        let applied = apply(owner, Options { migrator: &migrator, app_role, ..Options::default() }).await?;
        console::say(match applied {
            0 => "the database's schema is current".to_owned(),
            1 => "applied one migration".to_owned(),
            many => format!("applied {many} migrations"),
        });
        Ok(())
    }
}

/// Migrates, telling each step as it happens.
pub async fn apply(owner: &PgConnectOptions, options: Options<'_>) -> Result<usize> {
    schema::migrate(owner, options, console::say).await.map_err(|error| match error {
        schema::Error::NoRole(role) => Advice::new(
            format!("there is no role {role} to give the application's rights to"),
            format!("make it: create role {role} login password '…'"),
        )
        .into(),
        schema::Error::Failed { version, source } => {
            let error = anyhow::Error::new(schema::Error::Failed { version, source });
            error.context("the database could not be migrated")
        }
        error => anyhow::Error::new(error).context("the database could not be migrated"),
    })
}

async fn check(owner: &PgConnectOptions) -> Result<()> {
    use sqlx::ConnectOptions;
    let mut connection = owner.connect().await.context("the database cannot be reached")?;
    match schema::state(&mut connection).await? {
        schema::State::Current => {
            console::say(schema::State::Current);
            Ok(())
        }
        other => Err(anyhow::anyhow!("{other}")),
    }
}

/// Who migrates a configured database, and who else uses it.
pub fn roles_of(config: &Config) -> Result<(PgConnectOptions, Option<String>)> {
    let parse = |url: Option<streamspace_common::Secret<String>>| -> Result<PgConnectOptions> {
        let url = url.context("no database is configured")?;
        url.expose().parse().context("the database's URL cannot be read")
    };
    let app = parse(config.database.url())?;
    let owner = parse(config.database.direct_url())?;
    let app_role = (app.get_username() != owner.get_username()).then(|| app.get_username().to_owned());
    Ok((owner, app_role))
}
