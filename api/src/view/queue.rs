use jiff::Timestamp;
use serde::Serialize;
use streamspace_queue::queues::{Controls, QueueRow};
use utoipa::ToSchema;

/// A queue as the caller sees it: the tenant's figures, and what holds for its jobs.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    #[schema(example = "sessions")]
    pub name: String,
    /// For everyone or for the tenant's jobs.
    pub paused: bool,
    /// The lower of the two limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_running: Option<i32>,
    /// `50/s`; the tenant's own if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "50/s")]
    pub rate: Option<String>,
    /// Could start now. As last counted, a second ago or so, like the other figures.
    pub queued: i64,
    /// Scheduled, retrying or snoozed.
    pub delayed: i64,
    /// Part of what jobs show as `queued`: waits for a concurrency key.
    pub blocked: i64,
    pub parked: i64,
    pub running: i64,
    pub oldest_age_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted_at: Option<Timestamp>,
    /// What a platform administrator set.
    pub everyone: QueueControls,
    /// What the tenant set for its own jobs.
    pub tenant: QueueControls,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueControls {
    pub paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_running: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
}

impl From<Controls> for QueueControls {
    fn from(controls: Controls) -> Self {
        Self {
            paused: controls.paused_at.is_some(),
            paused_at: controls.paused_at,
            max_running: controls.max_running,
            rate: controls.rate.map(|rate| rate.to_string()),
            updated_at: controls.updated_at,
        }
    }
}

impl From<QueueRow> for Queue {
    fn from(row: QueueRow) -> Self {
        let stats = row.stats.as_ref();
        let limits = [row.tenant.max_running, row.everyone.max_running];
        Self {
            paused: row.is_paused(),
            max_running: limits.into_iter().flatten().min(),
            rate: row.tenant.rate.or(row.everyone.rate).map(|rate| rate.to_string()),
            queued: stats.map_or(0, |stats| stats.queued),
            delayed: stats.map_or(0, |stats| stats.delayed),
            blocked: stats.map_or(0, |stats| stats.blocked),
            parked: stats.map_or(0, |stats| stats.parked),
            running: stats.map_or(0, |stats| stats.running),
            oldest_age_seconds: stats.map_or(0.0, |stats| stats.oldest_age_seconds),
            counted_at: stats.map(|stats| stats.counted_at),
            everyone: row.everyone.into(),
            tenant: row.tenant.into(),
            name: row.name,
        }
    }
}
