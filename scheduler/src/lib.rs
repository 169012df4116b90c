//! The scheduler's role: fires schedules, and counts what waits for the whole fleet.
//!
//! Any number of replicas may run and none leads. All of them fire: who locks a schedule's row
//! fires it (`streamspace_queue::schedule`). One counts: who holds the lease, which another takes
//! when its holder is gone.

mod count;
mod fire;

use std::sync::Arc;

use streamspace_common::BootId;
use streamspace_queue::{Queue, schedule::Schedules};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Runs until `stop` fires. What is being fired then is committed first.
pub async fn run(queue: Queue, schedules: Schedules, stop: CancellationToken) {
    let me = BootId::new();
    info!(boot = %me, "scheduler started");
    // At 0 from the start, so that none is missing until the first tick is missed.
    metrics::counter!("streamspace_cron_missed_total").increment(0);
    let schedules = Arc::new(schedules);
    let mut loops = JoinSet::new();
    loops.spawn(fire::run(queue.clone(), schedules.clone(), stop.clone()));
    loops.spawn(count::run(queue, schedules, me, stop));
    while loops.join_next().await.is_some() {}
    info!("scheduler stopped");
}
