//! `streamspace admin`: what an operator does to an installation, with access to its database.

mod backup;
mod keys;
mod manifest;
mod restore;

use anyhow::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Admin {
    /// Write the database to a file, while everything runs.
    Backup(backup::Backup),
    /// Fill an empty database from a backup.
    Restore(restore::Restore),
    /// The keys that encrypt stored secrets.
    #[command(subcommand)]
    Keys(keys::Keys),
}

impl Admin {
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Backup(command) => command.run().await,
            Self::Restore(command) => command.run().await,
            Self::Keys(command) => command.run().await,
        }
    }
}
