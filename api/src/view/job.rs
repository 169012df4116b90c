use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use streamspace_common::Creator;
use streamspace_queue::{State, inspect};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Waiting;

/// A durable unit of work, and the operation that a client polls.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    pub id: Uuid,
    pub tenant_id: Uuid,
    #[schema(example = "catalog.sync_repository")]
    pub kind: String,
    /// Of its arguments' form.
    pub version: i16,
    #[schema(example = "catalog")]
    pub queue: String,
    /// -100 to 100; one step is worth a minute of waiting.
    pub priority: i16,
    pub arguments: Value,
    pub state: JobState,
    /// Nothing happens to it any more, unless somebody retries it.
    pub terminal: bool,
    pub attempt: i32,
    pub max_attempts: i32,
    /// When it may start; for a parked job, when it stops waiting for its event.
    pub run_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    pub timeout_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    pub concurrency_keys: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What the next attempt starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// How attempts failed: the newest twenty, oldest first.
    pub errors: Vec<JobError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<Uuid>,
    pub created_by: CreatedBy,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The worker that runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<Uuid>,
    pub created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_requested_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_delivered_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_stopped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Counts of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// Raised at every change; the id of its server-sent events.
    pub row_version: i64,
    /// Why it has not started; only in the answer for one job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    Scheduled,
    Queued,
    Running,
    Retrying,
    Snoozed,
    Parked,
    Succeeded,
    Failed,
    Cancelled,
}

impl From<State> for JobState {
    fn from(state: State) -> Self {
        match state {
            State::Scheduled => Self::Scheduled,
            State::Queued | State::Blocked => Self::Queued,
            State::Running => Self::Running,
            State::Retrying => Self::Retrying,
            State::Snoozed => Self::Snoozed,
            State::Parked => Self::Parked,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

impl From<JobState> for State {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Scheduled => Self::Scheduled,
            JobState::Queued => Self::Queued,
            JobState::Running => Self::Running,
            JobState::Retrying => Self::Retrying,
            JobState::Snoozed => Self::Snoozed,
            JobState::Parked => Self::Parked,
            JobState::Succeeded => Self::Succeeded,
            JobState::Failed => Self::Failed,
            JobState::Cancelled => Self::Cancelled,
        }
    }
}

/// How far it is; survives retries.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Progress {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobError {
    pub attempt: i32,
    pub at: Timestamp,
    pub kind: String,
    pub message: String,
}

/// What made it: a user, an API key, a schedule, a job, or the installation itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CreatedBy {
    #[serde(rename = "type")]
    #[schema(example = "api_key")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
}

impl From<Creator> for CreatedBy {
    fn from(creator: Creator) -> Self {
        let (kind, id) = creator.columns();
        Self { kind, id }
    }
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    pub total_items: i32,
    pub processed_items: i32,
    pub success_count: i32,
    pub failure_count: i32,
    pub cancelled_count: i32,
}

impl From<inspect::JobRow> for Job {
    fn from(row: inspect::JobRow) -> Self {
        Self {
            id: row.id.0,
            tenant_id: row.tenant.0,
            kind: row.kind,
            version: row.version,
            queue: row.queue,
            priority: row.priority,
            arguments: row.args,
            state: row.state.into(),
            terminal: row.state.is_terminal(),
            attempt: row.attempt,
            max_attempts: row.max_attempts,
            run_at: row.run_at,
            waits_for: row.waits_for,
            timeout_seconds: row.timeout.as_secs(),
            unique_key: row.unique_key,
            concurrency_keys: row.concurrency_keys,
            progress: row.progress.and_then(|progress| serde_json::from_value(progress).ok()),
            checkpoint: row.checkpoint,
            result: row.result,
            warning: row.warning,
            errors: row.errors.into_iter().map(JobError::from).collect(),
            parent_id: row.parent.map(|id| id.0),
            created_by: row.creator.into(),
            user_id: row.user.map(|id| id.0),
            request_id: row.request_id,
            traceparent: row.traceparent,
            worker_id: row.worker.map(|id| id.0),
            created_at: row.created_at,
            claimed_at: row.claimed_at,
            started_at: row.started_at,
            cancel_requested_at: row.cancel_requested_at,
            cancel_delivered_at: row.cancel_delivered_at,
            cancel_stopped_at: row.cancel_stopped_at,
            finished_at: row.finished_at,
            batch: row.batch.map(Batch::from),
            row_version: row.row_version,
            waiting: None,
        }
    }
}

impl From<inspect::JobError> for JobError {
    fn from(error: inspect::JobError) -> Self {
        Self { attempt: error.attempt, at: error.at, kind: error.kind, message: error.message }
    }
}

impl From<inspect::BatchCounts> for Batch {
    fn from(counts: inspect::BatchCounts) -> Self {
        Self {
            total_items: counts.total,
            processed_items: counts.processed(),
            success_count: counts.succeeded,
            failure_count: counts.failed,
            cancelled_count: counts.cancelled,
        }
    }
}
