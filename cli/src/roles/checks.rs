//! What a role's readiness depends on.

use std::sync::{Arc, OnceLock};

use anyhow::Result;
use streamspace_admin::Checks;
use streamspace_common::Config;
use streamspace_queue::{
    Queue,
    schema::{self, State},
};
use tokio_util::sync::CancellationToken;

use crate::redis_ping;

/// `queue` is empty until there is a database that can be asked.
pub fn of(queue: &Arc<OnceLock<Queue>>, config: &Config, draining: &CancellationToken) -> Checks {
    let (database, migrated) = (queue.clone(), queue.clone());
    let checks = Checks::new()
        .required("database", move || {
            let queue = database.get().cloned();
            async move {
                let mut connection = started(queue)?.read().await.map_err(|error| error.to_string())?;
                let asked = sqlx::query("select 1").execute(&mut *connection).await;
                asked.map(drop).map_err(|error| error.to_string())
            }
        })
        .required("schema", move || {
            let queue = migrated.get().cloned();
            async move { is_migrated(&started(queue)?).await }
        })
        .until(draining.clone());
    let Some(url) = config.redis.url.clone() else { return checks };
    // Live events go on without it, a second later.
    checks.optional("redis", move || {
        let url = url.clone();
        async move { redis_ping::ping(&url).await.map_err(|error| format!("{error:#}")) }
    })
}

fn started(queue: Option<Queue>) -> Result<Queue, &'static str> {
    queue.ok_or("it is being started or migrated")
}

/// A newer schema is no reason to stop serving: every migration lets the previous release run.
async fn is_migrated(queue: &Queue) -> Result<(), String> {
    let mut connection = queue.read().await.map_err(|error| error.to_string())?;
    match schema::state(&mut *connection).await.map_err(|error| error.to_string())? {
        older @ State::Older { .. } => Err(older.to_string()),
        State::Current | State::Newer { .. } => Ok(()),
    }
}
