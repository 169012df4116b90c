//! `streamspace admin api-keys`: ways in, made without one.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use streamspace_common::{Role, Secret, span};
use streamspace_domain::{
    api_keys::{self, NewApiKey, Owner},
    identity,
};

use super::operation;
use crate::{
    console,
    private_file::{self, Existing},
    settings::Settings,
};

#[derive(Subcommand)]
pub enum ApiKeys {
    /// Make a key and print it: it is shown this once.
    Create(Create),
}

#[derive(Args)]
pub struct Create {
    /// What it is for
    name: String,
    /// The tenant's slug
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Whose rights it has: a person's, by e-mail …
    #[arg(long, value_name = "EMAIL", required_unless_present = "role", conflicts_with = "role")]
    user: Option<String>,
    /// … or those of a role: viewer, user, operator or admin
    #[arg(long)]
    role: Option<Role>,
    /// What it may be used for, such as jobs.read; several times
    #[arg(long = "scope", value_name = "SCOPE", default_value = "*")]
    scopes: Vec<String>,
    /// Requests an hour [default: limits.api_key_per_hour]
    #[arg(long, value_name = "COUNT")]
    hourly_limit: Option<u32>,
    /// How long it works, such as 90d [default: for good]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires_in: Option<Duration>,
    /// Write the key to this file (0600) and do not print it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl ApiKeys {
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Create(command) => command.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<()> {
        let config = self.settings.load()?;
        let hourly_limit = self.hourly_limit.unwrap_or(config.limits.api_key_per_hour);
        let expires_at = match self.expires_in {
            Some(time) => Some(Timestamp::now().checked_add(SignedDuration::try_from(time)?)?),
            None => None,
        };
        let mut written = false;
        let made = operation(&config, async |tx| {
            let tenant = identity::find_tenant(tx, &self.tenant).await?;
            let owner = match self.role {
                Some(role) => Owner::Tenant(role),
                None => {
                    let email = self.user.as_deref().context("whose key? name --user or --role")?;
                    Owner::User(identity::find_user(tx, &tenant, email).await?.id)
                }
            };
            let new = NewApiKey {
                name: self.name.clone(),
                owner,
                scopes: self.scopes.clone(),
                hourly_limit,
                expires_at,
            };
            let (key, secret) = api_keys::create_in(tx, tenant.id, new).await?;
            // Before the commit: the database keeps a hash, so a key that is not written down is lost.
            if let Some(path) = &self.key_file {
                let text = Secret::new(format!("{}\n", secret.expose()));
                private_file::write(path, text.expose(), Existing::Keep)
                    .with_context(|| format!("cannot make {}", path.display()))?;
                written = true;
            }
            Ok((key, secret))
        })
        .await;
        let (key, secret) = made.inspect_err(|_| {
            if let Some(path) = self.key_file.as_ref().filter(|_| written) {
                fs::remove_file(path).ok();
            }
        })?;
        console::say(format_args!("API key {} of {}", key.id, self.tenant));
        if self.key_file.is_none() {
            console::result(secret.expose());
        }
        Ok(())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let time = span::parse(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "expected a time to come, such as 90d or 12h".to_owned())
}
