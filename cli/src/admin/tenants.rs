//! `streamspace admin tenants`: organisations on this installation.

use anyhow::Result;
use clap::{Args, Subcommand};
use streamspace_domain::identity::{self, NewOwner, NewTenant, Tier};

use super::operation;
use crate::{console, settings::Settings};

#[derive(Subcommand)]
pub enum Tenants {
    /// Make a tenant and its owner. `admin api-keys create` then makes a key for the owner.
    Create(Create),
}

#[derive(Args)]
pub struct Create {
    name: String,
    /// Its name in addresses, such as acme [default: made from the name]
    #[arg(long)]
    slug: Option<String>,
    /// free, standard or enterprise [default: tenants.default_tier]
    #[arg(long)]
    tier: Option<Tier>,
    #[arg(long, value_name = "EMAIL")]
    contact_email: Option<String>,
    #[arg(long, value_name = "EMAIL")]
    owner_email: String,
    #[arg(long, value_name = "NAME", default_value = "Owner")]
    owner_name: String,
    #[command(flatten)]
    settings: Settings,
}

impl Tenants {
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Create(command) => command.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<()> {
        let config = self.settings.load()?;
        let new = NewTenant {
            name: self.name,
            slug: self.slug,
            contact_email: self.contact_email,
            tier: self.tier.unwrap_or_else(|| config.tenants.default_tier.into()),
            owner: NewOwner {
                email: self.owner_email,
                name: self.owner_name,
                platform_admin: false,
                password_hash: None,
                email_verified: false,
            },
        };
        let (tenant, owner) =
            operation(&config, async move |tx| Ok(identity::create_tenant(tx, new).await?)).await?;
        console::result(format_args!(
            "tenant {} ({}), owner {} ({})",
            tenant.slug, tenant.id, owner.email, owner.id
        ));
        Ok(())
    }
}
