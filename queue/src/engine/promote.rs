//! Makes jobs claimable when their time comes: a timer to the next one, by the database's clock.

use std::{sync::Arc, time::Duration};

use tracing::warn;

use super::Engine;
use crate::claim;

/// The net under lost notices.
const AT_MOST: Duration = Duration::from_secs(1);
const BATCH: usize = 1000;

impl Engine {
    pub(super) async fn promote(self: Arc<Self>) {
        let mut wait = Duration::ZERO;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.due.notified() => {}
                () = self.over.cancelled() => return,
            }
            wait = match self.promote_once().await {
                Ok(next) => next,
                Err(error) => {
                    warn!(%error, "promoting what is due failed");
                    AT_MOST
                }
            };
        }
    }

    /// Promotes what is due; returns how long until there may be more.
    async fn promote_once(&self) -> sqlx::Result<Duration> {
        let mut conn = self.queue.db().direct().acquire().await?;
        let Some(next) = claim::next_due_us(&mut conn).await? else {
            return Ok(AT_MOST);
        };
        if next > 0 {
            return Ok(Duration::from_micros(next.unsigned_abs()).min(AT_MOST));
        }
        let (notices, promoted) = claim::promote(&mut conn).await?;
        drop(conn);
        self.queue.tell(notices);
        // What is due and was not promoted is locked by another process, which is promoting it.
        Ok(if promoted == BATCH || promoted > 0 { Duration::ZERO } else { Duration::from_millis(5) })
    }
}
