use jiff::Timestamp;
use serde::Serialize;
use streamspace_queue::inspect;
use utoipa::ToSchema;

/// What waits, runs and has ended. No figure counts a whole table.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    pub queues: Vec<QueueStats>,
    /// Of the newest jobs.
    pub finished: Finished,
    /// Failed jobs that are kept; counted to 10,000.
    pub failed: i64,
    pub failed_is_more: bool,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueStats {
    pub queue: String,
    pub queued: i64,
    pub delayed: i64,
    pub blocked: i64,
    pub parked: i64,
    pub running: i64,
    pub oldest_age_seconds: f64,
    pub counted_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finished {
    /// Of so many jobs…
    pub of: i64,
    /// …made since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    pub succeeded: i64,
    pub failed: i64,
    pub cancelled: i64,
}

impl From<inspect::Stats> for Stats {
    fn from(stats: inspect::Stats) -> Self {
        let inspect::Finished { of, since, succeeded, failed, cancelled } = stats.finished;
        Self {
            queues: stats.queues.into_iter().map(QueueStats::from).collect(),
            finished: Finished { of, since, succeeded, failed, cancelled },
            failed: stats.failed,
            failed_is_more: stats.failed_is_more,
        }
    }
}

impl From<inspect::QueueStats> for QueueStats {
    fn from(stats: inspect::QueueStats) -> Self {
        Self {
            queue: stats.queue,
            queued: stats.queued,
            delayed: stats.delayed,
            blocked: stats.blocked,
            parked: stats.parked,
            running: stats.running,
            oldest_age_seconds: stats.oldest_age_seconds,
            counted_at: stats.counted_at,
        }
    }
}
