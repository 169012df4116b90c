use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use streamspace_queue::{Attempt, Done, Failure, Job, Slot, minutes, seconds};

use crate::audit::{self, store};

/// How long the audit is kept; its months go whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept(pub Duration);

impl Default for Kept {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self(Duration::from_secs(400 * DAY))
    }
}

/// Seals the audit, again and again for as long as until the next job of this kind comes, and then
/// drops the months that are over. One job that is snoozed, instead of one every few seconds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {}

const PAUSE: Duration = seconds(3);
/// Less than the schedule's interval, so that the next one is never left out.
pub(crate) const EVERY: Duration = minutes(5);
const LASTS: Duration = seconds(290);

impl Job for Seal {
    const KIND: &'static str = "audit.seal";
    const QUEUE: &'static str = "maintenance";
    const TIMEOUT: Duration = minutes(10);
    const ATTEMPTS: i32 = 3;
    type Ctx = Kept;

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::everywhere(Self::KIND, 1)]
    }

    async fn run(self, kept: &Kept, attempt: &Attempt) -> Result<Done, Failure> {
        let mut sealed = attempt.checkpoint::<u64>().unwrap_or(0);
        let before = sealed;
        loop {
            let rows = audit::seal(attempt.queue()).await?;
            sealed += rows;
            if rows == 0 {
                break;
            }
            if attempt.cancel.is_cancelled() {
                return Err(Failure::Cancelled);
            }
        }
        if !is_over(attempt) {
            if sealed > before {
                attempt.set_checkpoint(sealed).await?;
            }
            return Err(Failure::Snooze(PAUSE));
        }
        let mut tx = attempt.begin();
        let dropped = store::drop_months(tx.conn().await?, kept.0).await?;
        tx.commit().await?;
        Ok(Done::with(json!({ "sealed": sealed, "droppedMonths": dropped })))
    }
}

/// An id tells when the job was made.
fn is_over(attempt: &Attempt) -> bool {
    let made = attempt.id().0.get_timestamp().map_or(0, |at| at.to_unix().0);
    let now = Timestamp::now().as_second();
    now.saturating_sub(i64::try_from(made).unwrap_or(0)) >= i64::try_from(LASTS.as_secs()).unwrap_or(0)
}
