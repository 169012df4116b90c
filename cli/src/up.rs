//! `streamspace up`: everything in one process.
//!
//! The order matters: whoever watches the process can ask it from the start, the database runs before anything asks it, the schema is current before a role
//! starts, and at the end jobs drain before the database stops.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use streamspace_common::{Config, sealed::MasterKeys};
use streamspace_queue::schema::Options;
use tokio_util::sync::CancellationToken;

use crate::{
    console,
    data_dir::{DataDir, Lock},
    database::Database,
    embedded::{self, Embedded},
    first_start::{self, AdminKey},
    migrate,
    roles::{Process, Roles, Watched},
    settings::{Flags, Listening, Settings, Working},
    signals,
};

#[derive(Args)]
pub struct Up {
    #[command(flatten)]
    listening: Listening,
    #[command(flatten)]
    working: Working,
    #[command(flatten)]
    settings: Settings,
}

impl Up {
    pub async fn run(self) -> Result<ExitCode> {
        let given = [self.listening.given(), self.working.given()].concat();
        let mut config = self.settings.load_with(given)?;
        let data_dir = DataDir::create(&config.server.data_dir)?;
        config.server.data_dir = data_dir.path().to_owned();
        let lock = data_dir.lock()?;
        let shutdown = signals::shutdown({
            let data_dir = data_dir.clone();
            move || embedded::ask_to_stop(&data_dir)
        })?;
        let watched = Watched::start(&config, shutdown.clone()).await?;
        match Database::configured(&config)? {
            Some(database) => work(config, &database, watched, &shutdown).await?,
            None => with_embedded(config, &data_dir, &lock, watched, &shutdown).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Whatever becomes of the work, the server stops after it.
async fn with_embedded(
    mut config: Config,
    data_dir: &DataDir,
    lock: &Lock,
    watched: Watched,
    shutdown: &CancellationToken,
) -> Result<()> {
    let mut server = tokio::select! {
        server = Embedded::start(data_dir, lock) => server?,
        () = shutdown.cancelled() => {
            embedded::ask_to_stop(data_dir);
            return Ok(());
        }
    };
    let database = Database::embedded(server.address());
    config.database.url = Some(database.app_url.clone());
    let outcome = tokio::select! {
        outcome = work(config, &database, watched, shutdown) => outcome,
        error = server.failed() => return Err(error),
    };
    outcome.and(server.stop().await)
}

async fn work(
    config: Config,
    database: &Database,
    watched: Watched,
    shutdown: &CancellationToken,
) -> Result<()> {
    let options = Options { app_role: database.app_role.as_deref(), ..Options::default() };
    let owner = database.owner()?;
    tokio::select! {
        migrated = migrate::apply(&owner, options) => migrated?,
        () = shutdown.cancelled() => return Ok(()),
    };
    MasterKeys::load_or_generate(&config.master_key_file())?;
    let process = Process::start(config, Roles::ALL, watched).await?;
    let key = first_start::prepare(&process.queue, &process.config).await?;
    tell(&process.config, key);
    process.run().await
}

fn tell(config: &Config, key: Option<AdminKey>) {
    let url = config.server.public_url();
    console::result(format_args!("StreamSpace {} runs at {url}", env!("CARGO_PKG_VERSION")));
    console::result(format_args!("  data            {}", config.server.data_dir.display()));
    if let Some(key) = key {
        console::result(format_args!("  administrator   {}", key.file.display()));
        console::result(format_args!(
            "  sign in         streamspace login --url {url} --api-key-file {}",
            key.file.display()
        ));
        if let Some(password) = &key.password_file {
            console::result(format_args!("  first password  {}", password.display()));
        }
        if let Some(shown) = key.shown {
            console::result(format_args!("                  {}   (shown this once)", shown.key.expose()));
            console::result(format_args!(
                "                  {} {}   (shown this once)",
                shown.email,
                shown.password.expose()
            ));
        }
    }
}
