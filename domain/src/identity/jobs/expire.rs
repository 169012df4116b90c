use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamspace_queue::{Attempt, Done, Failure, Job, Slot, minutes};
use tokio::time::Instant;

use crate::api_keys::usage;

/// Forgets what has ended by time: secrets of keys whose overlap is over, the log of what keys were used
/// for. That they end does not wait for this: each is asked for its time when somebody comes with it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expire {}

/// Of the time that it takes, the part in which it deletes.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(2);

impl Job for Expire {
    const KIND: &'static str = "identity.expire";
    const QUEUE: &'static str = "maintenance";
    const TIMEOUT: Duration = minutes(30);
    const ATTEMPTS: i32 = 3;
    type Ctx = ();

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::everywhere(Self::KIND, 1)]
    }

    async fn run(self, (): &(), attempt: &Attempt) -> Result<Done, Failure> {
        loop {
            let began = Instant::now();
            let mut tx = attempt.begin();
            let more = usage::prune(tx.conn().await?).await?;
            tx.commit().await?;
            if !more {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep((began.elapsed() * REST).min(LONGEST_REST)) => {}
                () = attempt.cancel.cancelled() => return Err(Failure::Cancelled),
            }
        }
        let mut tx = attempt.begin();
        usage::drop_months(tx.conn().await?).await?;
        tx.commit().await?;
        Ok(Done::nothing())
    }
}
