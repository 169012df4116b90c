//! `streamspace admin open-address`: for an office that was closed out by somebody's guesses.

use std::net::IpAddr;

use anyhow::Result;
use clap::Args;
use streamspace_domain::sign_in;

use super::operation;
use crate::{console, settings::Settings};

#[derive(Args)]
pub struct OpenAddress {
    /// The address that answers `429` to sign-ins; of IPv6 its network `/64` is meant
    address: IpAddr,
    #[command(flatten)]
    settings: Settings,
}

impl OpenAddress {
    pub async fn run(self) -> Result<()> {
        let config = self.settings.load()?;
        let address = self.address;
        let was_closed = operation(&config, async |tx| Ok(sign_in::open_address(tx, address).await?)).await?;
        let told = if was_closed { "may sign in again" } else { "has no failures: nothing was changed" };
        console::result(format_args!("{address} {told}"));
        Ok(())
    }
}
