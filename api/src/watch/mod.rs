//! Watching jobs. One watcher per process: clients (`?wait=`, server-sent events, WebSockets)
//! subscribe to it in process and hold no database connection.
//!
//! Live events are hints: the watcher reads the rows that they name, many in one statement, and
//! hands each to the clients that may see it. Beneath the hints lies a net: once a second it reads
//! the versions of everything that is watched in one statement, so a dead Redis, a cut LISTEN or an
//! overflow costs a second and nothing else. With the same beat it asks who may still watch.

mod change;
mod client;
mod hub;
mod run;

use std::sync::Arc;

use streamspace_common::JobId;
use streamspace_domain::callers::Callers;
use streamspace_queue::{Queue, inspect::JobRow};
use tokio_util::sync::CancellationToken;

use self::hub::Hub;
pub use self::{
    change::Change,
    client::{Client, Ended},
};
use crate::{caller::Caller, problem::ApiError};

/// What a client wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    Job(JobId),
    /// All jobs that the caller may see, or those of one kind.
    Jobs {
        kind: Option<String>,
    },
}

/// Clones share it.
#[derive(Clone)]
pub struct Watcher(Arc<Hub>);

impl Watcher {
    pub fn start(queue: Queue, callers: Callers, stop: CancellationToken) -> Self {
        let hub = Arc::new(Hub::default());
        tokio::spawn(run::run(hub.clone(), queue, callers, stop));
        Self(hub)
    }

    /// Everything of interest that commits from now on, as far as the caller may see it. `area` is
    /// what the caller's scopes must go on opening.
    pub fn open(&self, caller: &Caller, interest: Interest, area: &'static str) -> Result<Client, ApiError> {
        self.0.open(caller.checked().clone(), interest, area)
    }

    /// What a client has just read of what it watches: the net compares with that.
    pub fn has_read(&self, row: &JobRow) {
        self.0.has_read(row);
    }
}
