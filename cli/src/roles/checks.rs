//! What a role's readiness depends on.

use anyhow::Result;
use streamspace_admin::Checks;
use streamspace_common::Config;
use streamspace_queue::{
    Queue,
    schema::{self, State},
};
use tokio_util::sync::CancellationToken;

use crate::redis_ping;

pub fn of(queue: &Queue, config: &Config, draining: &CancellationToken) -> Checks {
    let (database, migrated) = (queue.clone(), queue.clone());
    let checks = Checks::new()
        .required("database", move || {
            let queue = database.clone();
            async move {
                let mut connection = queue.read().await?;
                sqlx::query("select 1").execute(&mut *connection).await.map(drop)
            }
        })
        .required("schema", move || {
            let queue = migrated.clone();
            async move { is_migrated(&queue).await }
        })
        .until(draining.clone());
    let Some(url) = config.redis.url.clone() else { return checks };
    // Live events go on without it, a second later.
    checks.optional("redis", move || {
        let url = url.clone();
        async move { redis_ping::ping(&url).await.map_err(|error| format!("{error:#}")) }
    })
}

/// A newer schema is no reason to stop serving: every migration lets the previous release run.
async fn is_migrated(queue: &Queue) -> Result<(), String> {
    let mut connection = queue.read().await.map_err(|error| error.to_string())?;
    match schema::state(&mut *connection).await.map_err(|error| error.to_string())? {
        older @ State::Older { .. } => Err(older.to_string()),
        State::Current | State::Newer { .. } => Ok(()),
    }
}
