//! The end of a worker: what runs may end, what does not end in time goes back.

use std::time::Duration;

use tokio::{task::JoinHandle, time::Instant};
use tracing::{info, warn};

use super::{Engine, Stop};

/// What dropping a handler and writing its end may take, beyond its grace.
const PATIENCE: Duration = Duration::from_secs(15);

impl Engine {
    /// Stops claiming; lets running jobs go on for the soft limit; then hands them back.
    pub(super) async fn drain(&self, mut fetching: JoinHandle<()>) {
        self.draining.cancel();
        self.fetch.notify_one();
        self.start_no_more();
        let soft = Instant::now() + self.options.shutdown_timeout;
        // What a claim under way still gets goes back like the rest, so it is waited for.
        let claimed = tokio::time::timeout_at(soft, &mut fetching).await.is_ok();
        if !self.settled_by(soft).await {
            info!("{} jobs still run after the soft limit: handing them back", self.live().len());
            for live in self.live() {
                live.stop(Stop::HandedBack);
            }
            // Handlers have their grace, then they are dropped; what ignores even that is abandoned.
            let grace = self.registry.longest_grace() + PATIENCE;
            if !self.settled_by(Instant::now() + grace).await {
                warn!("{} jobs could not be settled: others take them over", self.live().len());
            }
        }
        if !claimed {
            if tokio::time::timeout(PATIENCE, &mut fetching).await.is_err() {
                warn!("a claim has no answer; what it got goes back with the last word, or after the lease");
                fetching.abort();
            }
            self.settled_by(Instant::now() + PATIENCE).await;
        }
    }

    /// Whether nothing runs and everything is written before the deadline.
    async fn settled_by(&self, deadline: Instant) -> bool {
        loop {
            if self.attempts.lock().expect("no panic while it was held").is_empty() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
