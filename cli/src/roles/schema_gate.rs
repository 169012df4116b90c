//! No role works on a schema that is not the one it was built for.

use std::time::Duration;

use anyhow::{Result, bail};
use streamspace_queue::{
    Queue,
    schema::{self, State},
};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

const POLL: Duration = Duration::from_secs(1);

/// Whether there is nothing to wait for.
pub async fn is_open(queue: &Queue) -> bool {
    let asked = timeout(POLL, schema::state(queue.db().direct())).await;
    matches!(asked, Ok(Ok(State::Current)))
}

/// Waits for a database that is away, and for a schema that is still to be migrated: both come with
/// a roll-out. A newer schema is an end: it will not become older.
pub async fn wait(queue: &Queue) -> Result<()> {
    let mut told = String::new();
    loop {
        let reason = match schema::state(queue.db().direct()).await {
            Ok(State::Current) => break,
            Ok(newer @ State::Newer { .. }) => bail!("{newer}"),
            Ok(older @ State::Older { .. }) => older.to_string(),
            Err(error) => format!("the database cannot be reached: {error}"),
        };
        if reason != told {
            warn!("not ready: {reason}");
            told = reason;
        }
        sleep(POLL).await;
    }
    if !told.is_empty() {
        info!("the database is ready");
    }
    Ok(())
}
