//! The job engine as a worker runs it.

use std::time::Duration;

use super::section::section;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

section! {
    /// The job engine.
    "jobs" => JobsConfig {
        /// How long a worker's jobs are its own after its last sign of life; at least `3s`.
        lease: Duration = Duration::from_secs(10);
        /// How often a worker gives one; less than half the lease.
        heartbeat: Duration = Duration::from_secs(3), shown "`3s`, or a third of a lease shorter than `9s`";
        /// Jobs that one worker runs at a time.
        concurrency: usize = 32;
        /// Queues that the worker serves.
        queues: Option<Vec<String>> = None, shown "all";
        /// How long a worker that was asked to stop waits for its running jobs before it hands them back.
        shutdown_timeout: Duration = Duration::from_secs(30);
        /// Share of a queue's slots that one tenant may hold while others wait, above 0 and up to 1.
        fair_share: f64 = 0.5;
        /// When a job fails that no worker knows.
        unknown_after: Duration = Duration::from_secs(DAY);
        /// How long jobs that succeeded are kept.
        retention_succeeded: Duration = Duration::from_secs(7 * DAY);
        /// How long cancelled jobs are kept.
        retention_cancelled: Duration = Duration::from_secs(7 * DAY);
        /// How long failed jobs are kept.
        retention_failed: Duration = Duration::from_secs(30 * DAY);
    }
}
