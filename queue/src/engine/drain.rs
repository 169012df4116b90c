//! The end of a worker: what runs may end, what does not end in time goes back.

use std::time::Duration;

use tracing::{info, warn};

use super::{Engine, Stop};

/// What dropping a handler and writing its end may take, beyond its grace.
const PATIENCE: Duration = Duration::from_secs(15);

impl Engine {
    /// Stops claiming; lets running jobs go on for the soft limit; then hands them back.
    pub(super) async fn drain(&self) {
        self.draining.cancel();
        self.fetch.notify_one();
        self.start_no_more();
        let soft = tokio::time::Instant::now() + self.options.shutdown_timeout;
        if !self.settled_by(soft).await {
            info!("{} jobs still run after the soft limit: handing them back", self.live().len());
            for live in self.live() {
                live.stop(Stop::HandedBack);
            }
            // Handlers have their grace, then they are dropped; what ignores even that is abandoned.
            let grace = self.registry.longest_grace() + PATIENCE;
            if !self.settled_by(tokio::time::Instant::now() + grace).await {
                warn!("{} jobs could not be settled; their lease will run out", self.live().len());
            }
        }
    }

    /// Whether nothing runs and everything is written before the deadline.
    async fn settled_by(&self, deadline: tokio::time::Instant) -> bool {
        loop {
            if self.attempts.lock().expect("no panic while it was held").is_empty() {
                return true;
            }
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
