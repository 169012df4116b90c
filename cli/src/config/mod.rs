//! `streamspace config`: what is configured, what is wrong with it, and files to begin with.

mod init;

use anyhow::{Result, bail};
use clap::Subcommand;
use streamspace_common::{Config, config::Origin};

use crate::{console, settings::Settings};

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Print every setting that is in force and where it came from; secrets stay hidden.
    Show(Shown),
    /// Say what is missing or weak; fails if something is wrong.
    Check(Checked),
    /// Write an environment file with random secrets to begin with.
    Init(init::Init),
    /// Print every setting there is, as docs/configuration.md has it.
    Reference,
}

#[derive(clap::Args)]
pub struct Shown {
    /// Only what differs from the defaults
    #[arg(long)]
    changed: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(clap::Args)]
pub struct Checked {
    #[command(flatten)]
    settings: Settings,
}

impl ConfigCommand {
    pub fn run(self) -> Result<()> {
        match self {
            Self::Show(Shown { changed, settings }) => show(&settings.read()?, changed),
            Self::Check(Checked { settings }) => return check(&settings.read()?),
            Self::Init(command) => return command.run(),
            Self::Reference => console::result_text(&Config::reference()),
        }
        Ok(())
    }
}

fn show(config: &Config, changed_only: bool) {
    let settings = config.effective();
    let shown: Vec<_> = settings
        .iter()
        .filter(|setting| !changed_only || setting.origin != Origin::Default)
        .map(|setting| (setting.key, setting.value.as_deref().unwrap_or("-"), setting.origin.to_string()))
        .collect();
    let key_width = shown.iter().map(|(key, ..)| key.len()).max().unwrap_or(0);
    let value_width = shown.iter().map(|(_, value, _)| value.len()).max().unwrap_or(0).min(50);
    for (key, value, origin) in shown {
        console::result(format_args!("{key:key_width$}  {value:value_width$}  {origin}"));
    }
}

/// Reading has refused what no environment permits; left is what production would refuse.
fn check(config: &Config) -> Result<()> {
    let mut found = config.weak_secrets();
    if !config.database.is_configured() && config.is_production() {
        found.push(("database.url", "is missing: production has a database of its own"));
    }
    for notice in &config.notices {
        console::say(format_args!("note: {notice}"));
    }
    if found.is_empty() {
        console::result("the configuration is good");
        return Ok(());
    }
    let lines: Vec<_> = found.iter().map(|(key, problem)| format!("  {key}: {problem}")).collect();
    bail!("the configuration needs work:\n{}", lines.join("\n"))
}
