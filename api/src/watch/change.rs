//! One version of a job, rendered once for all clients that it goes to.

use std::sync::OnceLock;

use axum::{body::Bytes, extract::ws::Utf8Bytes};
use jiff::Timestamp;
use serde_json::{Value, json};
use streamspace_queue::{State, inspect::JobRow};

use crate::view;

/// What was last handed out of a job.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub version: i64,
    pub state: State,
    pub attempt: i32,
    pub progress: Option<Value>,
}

impl From<&JobRow> for Known {
    fn from(row: &JobRow) -> Self {
        Self {
            version: row.row_version,
            state: row.state,
            attempt: row.attempt,
            progress: row.progress.clone(),
        }
    }
}

pub struct Change {
    pub(super) row: JobRow,
    previous: Option<Known>,
    at: Timestamp,
    job: OnceLock<Bytes>,
    messages: OnceLock<Vec<Utf8Bytes>>,
}

impl Change {
    pub(super) fn new(row: JobRow, previous: Option<Known>) -> Self {
        Self { row, previous, at: Timestamp::now(), job: OnceLock::new(), messages: OnceLock::new() }
    }

    pub fn version(&self) -> i64 {
        self.row.row_version
    }

    pub fn is_terminal(&self) -> bool {
        self.row.state.is_terminal()
    }

    /// The job as `GET /jobs/{id}` shows it, but for why it waits.
    pub fn job(&self) -> &Bytes {
        self.job
            .get_or_init(|| serde_json::to_vec(&view::Job::from(self.row.clone())).unwrap_or_default().into())
    }

    /// What it is on a WebSocket: at most a change of state and a progress.
    pub fn messages(&self) -> &[Utf8Bytes] {
        self.messages.get_or_init(|| {
            let moved = self.moved().then(|| self.message("job.state.changed", self.state_data()));
            let progressed = self.progressed().then(|| self.message("job.progress", self.progress_data()));
            moved.into_iter().chain(progressed).collect()
        })
    }

    /// What the event is called among server-sent ones.
    pub fn name(&self) -> &'static str {
        if !self.moved() && self.progressed() { "job.progress" } else { "job.state.changed" }
    }

    fn moved(&self) -> bool {
        self.previous
            .as_ref()
            .is_none_or(|previous| (previous.state, previous.attempt) != (self.row.state, self.row.attempt))
    }

    fn progressed(&self) -> bool {
        self.row.progress.is_some()
            && self.previous.as_ref().is_none_or(|previous| previous.progress != self.row.progress)
    }

    fn state_data(&self) -> Value {
        json!({
            "kind": self.row.kind,
            "state": self.row.state,
            "previousState": self.previous.as_ref().map(|previous| previous.state),
            "attempt": self.row.attempt,
            "error": self.row.errors.last().map(|error| &error.message),
        })
    }

    fn progress_data(&self) -> Value {
        let field = |name: &str| self.row.progress.as_ref().and_then(|progress| progress.get(name)).cloned();
        json!({
            "kind": self.row.kind,
            "percent": field("percent"),
            "current": field("current"),
            "total": field("total"),
            "unit": field("unit"),
            "message": field("message"),
        })
    }

    fn message(&self, kind: &str, data: Value) -> Utf8Bytes {
        let message = json!({
            "type": kind,
            "jobId": self.row.id,
            "userId": self.row.user,
            "timestamp": self.at,
            "data": data,
        });
        message.to_string().into()
    }
}
