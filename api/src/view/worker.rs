use jiff::Timestamp;
use serde::Serialize;
use streamspace_queue::workers::{Status, WorkerRow};
use utoipa::ToSchema;
use uuid::Uuid;

/// A process that runs jobs, as it last said of itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Of one start of the process.
    pub id: Uuid,
    pub host: String,
    pub pid: i32,
    pub version: String,
    /// All, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<String>>,
    pub concurrency: i32,
    /// Jobs that it runs, as far as the caller may see them.
    pub running: i64,
    /// Handlers that ignore that they were told to stop.
    pub abandoned: i32,
    /// `live`, `draining`, or `silent` when it has missed beats.
    #[schema(example = "live")]
    pub status: &'static str,
    pub draining: bool,
    pub started_at: Timestamp,
    pub last_heartbeat_at: Timestamp,
    /// The jobs that it runs; only in the answer for one worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_jobs: Option<Vec<Uuid>>,
}

impl From<WorkerRow> for Worker {
    fn from(row: WorkerRow) -> Self {
        Self {
            id: row.id.0,
            host: row.host,
            pid: row.pid,
            version: row.version,
            queues: row.queues,
            concurrency: row.concurrency,
            running: row.running,
            abandoned: row.abandoned,
            status: match row.status {
                Status::Live => "live",
                Status::Draining => "draining",
                Status::Silent => "silent",
            },
            draining: row.status == Status::Draining,
            started_at: row.started_at,
            last_heartbeat_at: row.beat_at,
            running_jobs: None,
        }
    }
}
