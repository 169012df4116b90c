//! `streamspace admin`: what an operator does to an installation, with access to its database.

mod api_keys;
mod audit;
mod backup;
pub(crate) mod keys;
mod manifest;
mod open_address;
mod platform;
mod restore;
mod tenant_view;
mod tenants;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use streamspace_common::{Actor, Config, PLATFORM};
use streamspace_queue::{
    Tx,
    schema::{self, State},
    tx::Request,
};

use crate::database::{self, Database};

#[derive(Subcommand)]
pub enum Admin {
    /// Write the database to a file, while everything runs.
    Backup(backup::Backup),
    /// Fill an empty database from a backup.
    Restore(restore::Restore),
    /// The keys that encrypt stored secrets.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Organisations.
    #[command(subcommand)]
    Tenants(tenants::Tenants),
    /// Platform administrators.
    #[command(subcommand)]
    Platform(platform::Platform),
    /// Let an address sign in again that failures have closed.
    OpenAddress(open_address::OpenAddress),
    /// API keys.
    #[command(subcommand)]
    ApiKeys(api_keys::ApiKeys),
    /// Who changed what.
    #[command(subcommand)]
    Audit(audit::Audit),
}

impl Admin {
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Backup(command) => command.run().await,
            Self::Restore(command) => command.run().await,
            Self::Keys(command) => command.run().await,
            Self::Tenants(command) => command.run().await,
            Self::Platform(command) => command.run().await,
            Self::OpenAddress(command) => command.run().await,
            Self::ApiKeys(command) => command.run().await,
            Self::Audit(command) => command.run().await,
        }
    }
}

/// An operation of the domain as the installation itself, committed.
async fn operation<T>(config: &Config, work: impl AsyncFnOnce(&mut Tx) -> Result<T>) -> Result<T> {
    database::with(config, async |database: &Database| {
        let queue = database.queue()?;
        let outcome = async {
            let mut connection = queue.read().await.map_err(database::unreachable)?;
            match schema::state(&mut *connection).await.map_err(database::unreachable)? {
                State::Current => {}
                other => bail!("{other}"),
            }
            drop(connection);
            let mut tx = queue.begin(Actor::system(PLATFORM), Request::default());
            let made = work(&mut tx).await?;
            tx.commit().await.context("nothing was changed")?;
            Ok(made)
        }
        .await;
        queue.close().await;
        outcome
    })
    .await
}
