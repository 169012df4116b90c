//! `streamspace migrate`: brings the database to this release's schema.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use sqlx::{ConnectOptions, migrate::Migrator, postgres::PgConnectOptions};
use streamspace_queue::schema::{self, MIGRATOR, Options};

use crate::{
    console,
    database::{self, Database},
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
        database::with(&config, async |database: &Database| {
            let app_role = self.app_role.as_deref().or(database.app_role.as_deref());
            self.migrate(&database.owner()?, app_role).await
        })
        .await
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
        schema::Error::Database(error @ (sqlx::Error::Io(_) | sqlx::Error::Tls(_))) => {
            database::unreachable(error)
        }
        error => anyhow::Error::new(error).context("the database could not be migrated"),
    })
}

async fn check(owner: &PgConnectOptions) -> Result<()> {
    let mut connection = owner.connect().await.context("the database cannot be reached")?;
    match schema::state(&mut connection).await? {
        schema::State::Current => {
            console::say(schema::State::Current);
            Ok(())
        }
        other => Err(anyhow::anyhow!("{other}")),
    }
}
