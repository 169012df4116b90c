//! What a role's readiness depends on.

use anyhow::Result;
use streamspace_admin::Checks;
use streamspace_common::Config;
use streamspace_queue::{
    Queue,
    schema::{self, State},
};
use tokio_util::sync::CancellationToken;

pub fn of(queue: &Queue, _config: &Config, draining: &CancellationToken) -> Checks {
    let (database, migrated) = (queue.clone(), queue.clone());
    Checks::new()
        .required("database", move || {
            let queue = database.clone();
            async move { sqlx::query("select 1").execute(queue.db().pool()).await.map(drop) }
        })
        .required("schema", move || {
            let queue = migrated.clone();
            async move { is_migrated(&queue).await }
        })
        .until(draining.clone())
}

/// A newer schema is no reason to stop serving: every migration lets the previous release run.
async fn is_migrated(queue: &Queue) -> Result<(), String> {
    match schema::state(queue.db().pool()).await.map_err(|error| error.to_string())? {
        older @ State::Older { .. } => Err(older.to_string()),
        State::Current | State::Newer { .. } => Ok(()),
    }
}
