//! `streamspace admin audit`: whether the audit is what it was.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use streamspace_domain::audit;

use super::operation;
use crate::{console, settings::Settings};

#[derive(Subcommand)]
pub enum Audit {
    /// Read the whole audit against its chains of hashes, and name the first row that does not fit.
    /// Note down the hashes that it prints, elsewhere: a later run must find the chains go on from them.
    Verify(Verify),
}

#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    settings: Settings,
}

impl Audit {
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Verify(command) => command.run().await,
        }
    }
}

impl Verify {
    async fn run(self) -> Result<()> {
        let config = self.settings.load()?;
        let report = operation(&config, async |tx| Ok(audit::verify(tx).await?)).await?;
        if let Some(breach) = report.breach {
            bail!("the audit is not what it was: {breach}");
        }
        for (tenant, chain) in &report.chains {
            let hash: String = chain.hash.iter().map(|byte| format!("{byte:02x}")).collect();
            console::result(format_args!("{tenant}  {}  {hash}", chain.sequence));
        }
        console::say(format_args!(
            "{} rows in {} chains fit; {} are not sealed yet",
            report.rows,
            report.chains.len(),
            report.unsealed
        ));
        Ok(())
    }
}
