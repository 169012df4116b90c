//! `streamspace up`: everything in one process.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use streamspace_queue::schema::Options;
use tracing::info;

use crate::{
    console,
    data_dir::DataDir,
    database,
    embedded::{self, Embedded},
    migrate,
    settings::Settings,
    signals,
};

#[derive(Args)]
pub struct Up {
    #[command(flatten)]
    settings: Settings,
}

impl Up {
    pub async fn run(self) -> Result<ExitCode> {
        let mut config = self.settings.load()?;
        let data_dir = DataDir::create(&config.server.data_dir)?;
        config.server.data_dir = data_dir.path().to_owned();
        let lock = data_dir.lock()?;
        let shutdown = signals::shutdown(|| {})?;
        let mut server = Embedded::start(&data_dir, &lock).await?;
        let options = Options { app_role: Some(embedded::APP), ..Options::default() };
        migrate::apply(&database::options(&server.address().owner_url())?, options).await?;
        config.database.url = Some(server.address().app_url());
        console::result(format_args!("StreamSpace {} runs", env!("CARGO_PKG_VERSION")));
        tokio::select! {
            () = shutdown.cancelled() => {}
            error = server.failed() => return Err(error),
        }
        info!("draining");
        server.stop().await?;
        Ok(ExitCode::SUCCESS)
    }
}
