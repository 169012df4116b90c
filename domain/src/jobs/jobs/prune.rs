use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use streamspace_queue::{
    Attempt, Done, Failure, Job, Progress, Slot, minutes,
    retention::{self, Retention},
};
use tokio::time::Instant;

use crate::{idempotency, pace::rest, tickets};

/// Deletes jobs that have been over for their time, and what else need not be kept: keys and events of
/// the engine, stored answers, tickets.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prune {}

impl Job for Prune {
    const KIND: &'static str = "jobs.prune";
    const QUEUE: &'static str = "maintenance";
    const TIMEOUT: Duration = minutes(30);
    const ATTEMPTS: i32 = 3;
    type Ctx = Retention;

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::everywhere(Self::KIND, 1)]
    }

    async fn run(self, retention: &Retention, attempt: &Attempt) -> Result<Done, Failure> {
        let mut tx = attempt.begin();
        retention::keep_months(tx.conn().await?).await?;
        tx.commit().await?;

        let mut deleted = 0;
        let mut after = None;
        loop {
            let began = Instant::now();
            let mut tx = attempt.begin();
            let pruned = retention::prune_jobs(tx.conn().await?, retention, after).await?;
            tx.commit().await?;
            deleted += pruned.deleted;
            let Some(next) = pruned.next else { break };
            after = Some(next);
            attempt.progress(Progress {
                current: Some(deleted),
                unit: Some("jobs".into()),
                ..Progress::default()
            });
            rest(attempt, began).await?;
        }
        loop {
            let began = Instant::now();
            let mut tx = attempt.begin();
            let leftovers = retention::prune_leftovers(tx.conn().await?).await?;
            let answers = idempotency::prune(&mut tx).await?;
            let tickets = tickets::prune(&mut tx).await?;
            tx.commit().await?;
            if !(leftovers || answers || tickets) {
                break;
            }
            rest(attempt, began).await?;
        }
        Ok(Done::with(json!({ "deleted": deleted })))
    }
}
