//! The flags from which every server command takes its configuration.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;
use clap::Args;
use nix::unistd::geteuid;
use streamspace_common::{
    Config,
    config::{Origin, Problems, Sources},
    telemetry,
};
use tracing::warn;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Configuration")]
pub struct Settings {
    /// File with settings, TOML or YAML [env: STREAMSPACE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept [default: ~/.local/share/streamspace; for root /var/lib/streamspace]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A PostgreSQL of your own: postgres://user:password@host/name. With a password better in
    /// STREAMSPACE_DATABASE_URL, which other users do not see
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Any other setting, such as server.port=8081 (`streamspace config show` lists them)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

/// Flags of one command that stand for settings.
pub trait Flags: Args {
    /// Those that were given.
    fn given(&self) -> Vec<(&'static str, String)>;
}

/// Of a command that has none.
#[derive(Args, Clone, Debug, Default)]
pub struct NoFlags {}

impl Flags for NoFlags {
    fn given(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Of a command that listens.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Configuration")]
pub struct Listening {
    /// Address of the public port
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Public port; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
}

impl Flags for Listening {
    fn given(&self) -> Vec<(&'static str, String)> {
        given([("server.host", &self.host), ("server.port", &self.port)])
    }
}

/// Of a command that runs jobs.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Configuration")]
pub struct Working {
    /// Jobs that this process runs at a time
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<String>,
}

impl Flags for Working {
    fn given(&self) -> Vec<(&'static str, String)> {
        given([("jobs.concurrency", &self.concurrency)])
    }
}

fn given<const N: usize>(flags: [(&'static str, &Option<String>); N]) -> Vec<(&'static str, String)> {
    flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect()
}

impl Settings {
    /// Reads everything, or says all that is wrong with it.
    pub fn read(&self) -> Result<Config, Problems> {
        self.read_with(Vec::new())
    }

    fn read_with(&self, given: Vec<(&'static str, String)>) -> Result<Config, Problems> {
        let mut flags: BTreeMap<String, String> = self.set.iter().cloned().collect();
        flags.extend(given.into_iter().map(|(key, value)| (key.to_owned(), value)));
        if let Some(dir) = &self.data_dir {
            flags.insert("server.data_dir".to_owned(), dir.to_string_lossy().into_owned());
        }
        if let Some(url) = &self.database_url {
            flags.insert("database.url".to_owned(), url.clone());
        }
        let mut config = Config::load(&Sources::of_process(flags, self.config.clone()))?;
        // Root's home is closed to the user whom its PostgreSQL runs as.
        if geteuid().is_root() && config.origins.get("server.data_dir") == Some(&Origin::Default) {
            config.server.data_dir = PathBuf::from("/var/lib/streamspace");
        }
        Ok(config)
    }

    /// As `read`, for a command that goes on to work with it: starts the log.
    pub fn load(&self) -> Result<Config> {
        self.load_with(Vec::new())
    }

    pub fn load_with(&self, given: Vec<(&'static str, String)>) -> Result<Config> {
        let config = self.read_with(given)?;
        telemetry::start_log(&config.log);
        for notice in &config.notices {
            warn!("{notice}");
        }
        Ok(config)
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}
