//! `streamspace admin tenants`: organisations on this installation.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use streamspace_common::{config::Registration, span};
use streamspace_domain::{
    identity::{self, NewOwner, NewTenant, Tenant, Tier, tenants},
    registration::{self, NewInvitation},
};

use super::{
    operation,
    tenant_view::{Shown, WithCensus, item},
};
use crate::{
    client::{
        confirm::confirm,
        output::{Format, Item, Output},
        text::moment,
    },
    console,
    settings::Settings,
};

#[derive(Subcommand)]
pub enum Tenants {
    /// Make a tenant and its owner. `admin api-keys create` then makes a key for the owner.
    Create(Create),
    /// Print an invitation with which somebody registers a tenant, once.
    Invite(Invite),
    /// List them.
    List(List),
    /// Show one, and who owns it.
    Show(Show),
    /// Lock everybody out and stop its jobs and schedules, until it is resumed.
    Suspend(Dangerous),
    /// Let them in again; jobs and schedules go on.
    Resume(Named),
    /// Suspend it, and delete it after 7 days in which that can be taken back.
    Delete(Delete),
    /// Take a deletion back, until it has begun.
    Undelete(Named),
    /// Give it another tier.
    SetTier(SetTier),
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

#[derive(Args)]
pub struct Invite {
    /// Whom: nobody else can use it [default: whoever has it]
    #[arg(long)]
    email: Option<String>,
    /// free, standard or enterprise [default: tenants.default_tier]
    #[arg(long)]
    tier: Option<Tier>,
    /// How long it works, such as 12h; at most 90d [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires_in: Option<Duration>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    print: Print,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
pub struct Show {
    /// Its slug
    tenant: String,
    #[command(flatten)]
    print: Print,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
pub struct Named {
    /// Its slug
    tenant: String,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
pub struct Dangerous {
    #[command(flatten)]
    named: Named,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
pub struct Delete {
    #[command(flatten)]
    dangerous: Dangerous,
    /// Without the 7 days: in a minute
    #[arg(long)]
    now: bool,
}

#[derive(Args)]
pub struct SetTier {
    /// Its slug
    tenant: String,
    /// free, standard or enterprise
    tier: Tier,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
pub struct Print {
    /// How results are printed
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    /// Print slugs only
    #[arg(short, long)]
    quiet: bool,
}

impl Print {
    fn output(&self) -> Output {
        Output { format: self.output, quiet: self.quiet }
    }
}

impl Tenants {
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Create(command) => command.run().await,
            Self::Invite(command) => command.run().await,
            Self::List(command) => command.run().await,
            Self::Show(command) => command.run().await,
            Self::Suspend(command) => suspend(command).await,
            Self::Resume(command) => resume(command).await,
            Self::Delete(command) => command.run().await,
            Self::Undelete(command) => undelete(command).await,
            Self::SetTier(command) => command.run().await,
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

impl Invite {
    async fn run(self) -> Result<()> {
        let config = self.settings.load()?;
        let new = NewInvitation {
            email: self.email,
            tier: self.tier,
            lasts: self.expires_in.unwrap_or(registration::LASTS),
        };
        let invitation = operation(&config, async move |tx| Ok(registration::invite(tx, new).await?)).await?;
        console::say(format_args!(
            "The invitation works once, until {}",
            moment(invitation.expires_at, Timestamp::now())
        ));
        if config.tenants.registration == Registration::Closed {
            console::say(
                "Registration is closed here: set tenants.registration to invite, or it opens nothing",
            );
        }
        console::result(invitation.secret.expose());
        Ok(())
    }
}

/// Read at a time.
const PAGE: u32 = 200;

impl List {
    async fn run(self) -> Result<()> {
        let config = self.settings.load()?;
        let all = operation(&config, async |tx| {
            let mut all: Vec<Tenant> = Vec::new();
            loop {
                let page = tenants::list(tx, all.last().map(|last| last.id), PAGE).await?;
                let is_last = page.len() < PAGE as usize;
                all.extend(page);
                if is_last {
                    return Ok(all);
                }
            }
        })
        .await?;
        let items: Vec<Item<Shown>> = all.iter().map(item).collect::<Result<_>>()?;
        self.print.output().list(&items, "There are no tenants.");
        Ok(())
    }
}

impl Show {
    async fn run(self) -> Result<()> {
        let config = self.settings.load()?;
        let (tenant, census) =
            operation(&config, async |tx| Ok(tenants::show(tx, &self.tenant).await?)).await?;
        self.print.output().one(&item::<Shown>(&WithCensus { tenant, census })?);
        Ok(())
    }
}

async fn suspend(command: Dangerous) -> Result<()> {
    let Dangerous { named: Named { tenant, settings }, yes } = command;
    let config = settings.load()?;
    if !yes && !confirm(format_args!("Lock everybody of {tenant} out?"))? {
        return Ok(());
    }
    operation(&config, async |tx| Ok(tenants::suspend(tx, &tenant).await?)).await?;
    console::result(format_args!("{tenant} is suspended"));
    Ok(())
}

async fn resume(Named { tenant, settings }: Named) -> Result<()> {
    let config = settings.load()?;
    operation(&config, async |tx| Ok(tenants::resume(tx, &tenant).await?)).await?;
    console::result(format_args!("{tenant} is active"));
    Ok(())
}

impl Delete {
    async fn run(self) -> Result<()> {
        let Dangerous { named: Named { tenant, settings }, yes } = self.dangerous;
        let config = settings.load()?;
        if !yes && !confirm(format_args!("Delete {tenant} with everything in it?"))? {
            return Ok(());
        }
        let (_, at, job) =
            operation(&config, async |tx| Ok(tenants::delete(tx, &tenant, self.now).await?)).await?;
        console::result(format_args!("{tenant} is suspended, and deleted {}", moment(at, Timestamp::now())));
        console::say(format_args!(
            "The job {job} does that. Until it begins: streamspace admin tenants undelete {tenant}"
        ));
        Ok(())
    }
}

async fn undelete(Named { tenant, settings }: Named) -> Result<()> {
    let config = settings.load()?;
    let tenant = operation(&config, async |tx| Ok(tenants::undelete(tx, &tenant).await?)).await?;
    let is = if tenant.active { "active" } else { "suspended, as it was before" };
    console::result(format_args!("{} is {is}", tenant.slug));
    Ok(())
}

impl SetTier {
    async fn run(self) -> Result<()> {
        let config = self.settings.load()?;
        let tenant =
            operation(&config, async |tx| Ok(tenants::set_tier(tx, &self.tenant, self.tier).await?)).await?;
        console::result(format_args!("{} has the tier {}", tenant.slug, tenant.tier.as_str()));
        Ok(())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let time = span::parse(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "expected a time to come, such as 7d or 12h".to_owned())
}
