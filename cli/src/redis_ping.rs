//! Whether Redis answers.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use streamspace_common::Secret;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(2);

pub async fn ping(url: &Secret<String>) -> Result<()> {
    // The URL may hold a password, so no error repeats it.
    let Ok(client) = redis::Client::open(url.expose().as_str()) else {
        bail!("redis.url is not a Redis URL")
    };
    let answered = timeout(PATIENCE, async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async::<()>(&mut connection).await
    });
    answered.await.context("Redis does not answer")?.context("Redis does not answer")
}
