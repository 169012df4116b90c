//! Jobs as readers see them. Reads never cost more the more jobs there are: each goes by an index
//! and looks at a bounded number of rows.

mod list;
mod stats;
mod waiting;

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use streamspace_common::{BootId, Creator, JobId, TenantId, UserId};
use uuid::Uuid;

use crate::model::State;

pub use list::{Filter, Page, list, made_since};
pub(crate) use list::{id_at, page_of_ids};
pub(crate) use stats::queue_stats;
pub use stats::{Finished, QueueStats, Stats, stats};
pub use waiting::{Position, Reason, Waiting, waiting};

/// Which jobs a reader or a change may reach. Every other job does not exist for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of every tenant: platform administrators.
    Installation,
    Tenant(TenantId),
    /// Those of one person.
    User(TenantId, UserId),
    /// Those that one credential without a person made.
    Creator(TenantId, Uuid),
}

impl Scope {
    pub fn tenant(self) -> Option<TenantId> {
        match self {
            Self::Installation => None,
            Self::Tenant(tenant) | Self::User(tenant, _) | Self::Creator(tenant, _) => Some(tenant),
        }
    }

    pub fn user(self) -> Option<UserId> {
        match self {
            Self::User(_, user) => Some(user),
            _ => None,
        }
    }

    pub(crate) fn creator(self) -> Option<Uuid> {
        match self {
            Self::Creator(_, creator) => Some(creator),
            _ => None,
        }
    }

    /// The scope in a statement: three values, each a condition unless it is null.
    pub(crate) fn columns(self) -> (Option<Uuid>, Option<Uuid>, Option<Uuid>) {
        (self.tenant().map(|tenant| tenant.0), self.user().map(|user| user.0), self.creator())
    }
}

/// A job, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRow {
    pub id: JobId,
    pub tenant: TenantId,
    pub kind: String,
    pub version: i16,
    pub queue: String,
    pub priority: i16,
    pub args: Value,
    /// The state that readers see: never `blocked`, which is `queued`.
    pub state: State,
    pub attempt: i32,
    pub max_attempts: i32,
    /// When it may start, or for a parked job when it stops waiting for its event.
    pub run_at: Timestamp,
    /// The event that it is parked for.
    pub waits_for: Option<String>,
    pub timeout: Duration,
    pub unique_key: Option<String>,
    pub concurrency_keys: Vec<String>,
    pub progress: Option<Value>,
    pub checkpoint: Option<Value>,
    pub result: Option<Value>,
    pub warning: Option<String>,
    /// The newest twenty, oldest first.
    pub errors: Vec<JobError>,
    pub parent: Option<JobId>,
    pub user: Option<UserId>,
    pub creator: Creator,
    pub request_id: Option<String>,
    pub traceparent: Option<String>,
    /// The process that runs it.
    pub worker: Option<BootId>,
    pub created_at: Timestamp,
    pub claimed_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub cancel_requested_at: Option<Timestamp>,
    pub cancel_delivered_at: Option<Timestamp>,
    pub cancel_stopped_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Set for a batch.
    pub batch: Option<BatchCounts>,
    /// Raised at every change.
    pub row_version: i64,
}

/// One entry of a job's error history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobError {
    pub attempt: i32,
    pub at: Timestamp,
    pub kind: String,
    pub message: String,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchCounts {
    pub total: i32,
    pub succeeded: i32,
    pub failed: i32,
    pub cancelled: i32,
}

impl BatchCounts {
    pub fn processed(self) -> i32 {
        self.succeeded + self.failed + self.cancelled
    }
}

/// A row as it is stored.
pub(crate) struct Stored {
    id: JobId,
    tenant: TenantId,
    kind: String,
    version: i16,
    queue: String,
    priority: i16,
    args: Value,
    state: State,
    attempt: i32,
    max_attempts: i32,
    run_at: jiff_sqlx::Timestamp,
    park_key: Option<String>,
    timeout_ms: i64,
    unique_key: Option<String>,
    slot_keys: Option<Vec<String>>,
    progress: Option<Value>,
    checkpoint: Option<Value>,
    result: Option<Value>,
    warning: Option<String>,
    errors: Option<Value>,
    parent: Option<JobId>,
    user: Option<UserId>,
    creator_type: String,
    creator_id: Option<Uuid>,
    request_id: Option<String>,
    traceparent: Option<String>,
    worker: Option<BootId>,
    created_at: jiff_sqlx::Timestamp,
    claimed_at: Option<jiff_sqlx::Timestamp>,
    started_at: Option<jiff_sqlx::Timestamp>,
    cancel_requested_at: Option<jiff_sqlx::Timestamp>,
    cancel_delivered_at: Option<jiff_sqlx::Timestamp>,
    cancel_stopped_at: Option<jiff_sqlx::Timestamp>,
    finished_at: Option<jiff_sqlx::Timestamp>,
    row_version: i64,
    batch_total: Option<i32>,
    batch_succeeded: Option<i32>,
    batch_failed: Option<i32>,
    batch_cancelled: Option<i32>,
}

impl From<Stored> for JobRow {
    fn from(row: Stored) -> Self {
        let time = |at: Option<jiff_sqlx::Timestamp>| at.map(|at| at.to_jiff());
        Self {
            id: row.id,
            tenant: row.tenant,
            kind: row.kind,
            version: row.version,
            queue: row.queue,
            priority: row.priority,
            args: row.args,
            state: row.state.public(),
            attempt: row.attempt,
            max_attempts: row.max_attempts,
            run_at: row.run_at.to_jiff(),
            // A job that a timeout woke keeps the key until its attempt ends.
            waits_for: row.park_key.filter(|_| row.state == State::Parked),
            timeout: Duration::from_millis(u64::try_from(row.timeout_ms).unwrap_or(0)),
            unique_key: row.unique_key,
            concurrency_keys: row.slot_keys.unwrap_or_default().iter().map(|key| shown_key(key)).collect(),
            progress: row.progress,
            checkpoint: row.checkpoint,
            result: row.result,
            warning: row.warning,
            errors: row.errors.and_then(|errors| serde_json::from_value(errors).ok()).unwrap_or_default(),
            parent: row.parent,
            user: row.user,
            creator: Creator::from_columns(&row.creator_type, row.creator_id),
            request_id: row.request_id,
            traceparent: row.traceparent,
            worker: row.worker,
            created_at: row.created_at.to_jiff(),
            claimed_at: time(row.claimed_at),
            started_at: time(row.started_at),
            cancel_requested_at: time(row.cancel_requested_at),
            cancel_delivered_at: time(row.cancel_delivered_at),
            cancel_stopped_at: time(row.cancel_stopped_at),
            finished_at: time(row.finished_at),
            batch: row.batch_total.map(|total| BatchCounts {
                total,
                succeeded: row.batch_succeeded.unwrap_or(0),
                failed: row.batch_failed.unwrap_or(0),
                cancelled: row.batch_cancelled.unwrap_or(0),
            }),
            row_version: row.row_version,
        }
    }
}

/// A concurrency key without the tenant that it is stored with.
fn shown_key(stored: &str) -> String {
    stored.split_once('/').map_or(stored, |(_, key)| key).to_owned()
}

/// Whole jobs, newest first, of the ids that a text selects.
macro_rules! read_jobs {
    ($ids:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::inspect::Stored,
            r#"select j.id as "id: _", j.tenant_id as "tenant: _", j.kind, j.version, j.queue, j.priority, j.args,
                      j.state as "state: _", j.attempt, j.max_attempts, j.run_at, j.park_key, j.timeout_ms,
                      j.unique_key, j.slot_keys, j.progress, j.checkpoint, j.result, j.warning, j.errors,
                      j.parent_id as "parent: _", j.user_id as "user: _", j.creator_type, j.creator_id,
                      j.request_id, j.traceparent, j.boot_id as "worker: _", j.created_at, j.claimed_at,
                      j.started_at, j.cancel_requested_at, j.cancel_delivered_at, j.cancel_stopped_at,
                      j.finished_at, j.row_version, b.total as "batch_total?", b.succeeded as "batch_succeeded?",
                      b.failed as "batch_failed?", b.cancelled as "batch_cancelled?"
               from jobs j left join job_batches b on b.job_id = j.id
               where j.id in ("# + $ids + ") order by j.id desc"
            $(, $argument)*
        )
    };
}
use read_jobs;

/// One job. `None`: there is none, or it is not for this reader.
pub async fn get(conn: &mut PgConnection, scope: Scope, id: JobId) -> sqlx::Result<Option<JobRow>> {
    let (tenant, user, creator) = scope.columns();
    let row = read_jobs!(
        "select id from jobs where id = $1 and ($2::uuid is null or tenant_id = $2)
         and ($3::uuid is null or user_id = $3) and ($4::uuid is null or creator_id = $4)",
        id.0,
        tenant,
        user,
        creator,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(JobRow::from))
}

/// Those of the named jobs that the reader may see, newest first.
pub async fn many(conn: &mut PgConnection, scope: Scope, ids: &[JobId]) -> sqlx::Result<Vec<JobRow>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let (tenant, user, creator) = scope.columns();
    let rows = read_jobs!(
        "select id from jobs where id = any($1) and ($2::uuid is null or tenant_id = $2)
         and ($3::uuid is null or user_id = $3) and ($4::uuid is null or creator_id = $4)",
        &ids,
        tenant,
        user,
        creator,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(JobRow::from).collect())
}

/// The versions of jobs, for who watches them. It reads no rights: what is watched was let through.
pub async fn versions(conn: &mut PgConnection, ids: &[JobId]) -> sqlx::Result<HashMap<JobId, i64>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(r#"select id as "id: JobId", row_version from jobs where id = any($1)"#, &ids)
        .fetch_all(conn)
        .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.row_version)).collect())
}
