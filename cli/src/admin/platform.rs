//! `streamspace admin platform`: who sees and changes the installation as a whole.

use anyhow::Result;
use clap::{Args, Subcommand};
use streamspace_domain::identity;

use super::operation;
use crate::{console, settings::Settings};

#[derive(Subcommand)]
pub enum Platform {
    /// Make a person a platform administrator: queues, workers and built-in schedules are theirs.
    Grant(Person),
    /// Take that back. The person's role in the tenant stays.
    Revoke(Person),
}

#[derive(Args)]
pub struct Person {
    /// The person's e-mail address
    email: String,
    /// The slug of the person's tenant
    #[arg(long, default_value = "default")]
    tenant: String,
    #[command(flatten)]
    settings: Settings,
}

impl Platform {
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Grant(person) => person.set(true).await,
            Self::Revoke(person) => person.set(false).await,
        }
    }
}

impl Person {
    async fn set(self, platform_admin: bool) -> Result<()> {
        let config = self.settings.load()?;
        let user = operation(&config, async |tx| {
            let tenant = identity::find_tenant(tx, &self.tenant).await?;
            Ok(identity::set_platform_admin(tx, &tenant, &self.email, platform_admin).await?)
        })
        .await?;
        let is = if platform_admin { "is" } else { "is not" };
        console::result(format_args!(
            "{} ({}) of {} {is} a platform administrator",
            user.email, user.id, self.tenant
        ));
        Ok(())
    }
}
