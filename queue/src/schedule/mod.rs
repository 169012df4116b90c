//! Schedules: what enqueues a job at set times.
//!
//! Any number of schedulers may run, none leads. Who fires a tick locks the schedule's row, writes
//! the tick into the ledger `job_fires`, whose unique row decides, enqueues, and moves the schedule
//! on, in one transaction: so no tick fires twice, and none is lost when a scheduler dies. All of it
//! goes by the database's time.

mod built_in;
mod edit;
mod fire;
mod leaving;
mod store;
mod timing;
mod troubled;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use streamspace_common::{ApiKeyId, Classified, Creator, ErrorKind, JobId, ScheduleId, TenantId, UserId};

use crate::{enqueue::EnqueueError, registry::Registry};

pub use built_in::{BuiltIn, declare};
pub use edit::{Preview, SaveSchedule, create, delete, pause, preview, resume, run_now, update};
pub use fire::{Fired, fire_due};
pub use leaving::{HandedOver, delete_of, hand_over};
pub use store::{fires, get, list};
pub use timing::{CatchUp, MOST_CAUGHT_UP, Timing, TimingError, When};
pub use troubled::Troubled;

/// What schedules may enqueue, and which ones the program brings along.
#[derive(Clone)]
pub struct Schedules {
    pub(crate) registry: Registry,
    pub(crate) built_in: Arc<[BuiltIn]>,
}

impl Schedules {
    pub fn new(registry: Registry, built_in: impl Into<Arc<[BuiltIn]>>) -> Self {
        Self { registry, built_in: built_in.into() }
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn built_in(&self) -> &[BuiltIn] {
        &self.built_in
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub id: ScheduleId,
    pub tenant: TenantId,
    pub name: String,
    pub kind: String,
    pub args: Value,
    pub when: When,
    pub time_zone: String,
    /// Each fire is late by a random part of this.
    pub jitter: Duration,
    pub catch_up: CatchUp,
    /// How far back ticks are caught up.
    pub catch_up_window: Duration,
    pub overlap: Overlap,
    pub built_in: bool,
    pub paused: bool,
    /// The next tick; `None`: never again, or paused.
    pub next_at: Option<Timestamp>,
    /// The tick that fired last.
    pub last_fire_at: Option<Timestamp>,
    pub last_job: Option<JobId>,
    pub missed_count: i64,
    /// Whose rights its jobs have.
    pub user: Option<UserId>,
    pub key: Option<ApiKeyId>,
    pub creator: Creator,
    pub row_version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What to do when the job of the last tick is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    Allow,
    Skip,
}

impl Overlap {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Skip => "skip",
        }
    }

    pub(crate) fn from_column(text: &str) -> Self {
        if text == "allow" { Self::Allow } else { Self::Skip }
    }
}

/// A line of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Fire {
    /// The tick.
    pub fire_at: Timestamp,
    /// When it was dealt with.
    pub at: Timestamp,
    /// `fired`, `skipped`, `missed` or `manual`.
    pub outcome: String,
    pub job: Option<JobId>,
}

#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error("there is no such schedule")]
    NotFound,
    #[error("a schedule of this name exists")]
    NameTaken,
    #[error(
        "built-in schedules are part of the program: they can be paused, resumed and run, but not changed"
    )]
    BuiltIn,
    /// A field of the request, as a JSON pointer, and what is wrong with it.
    #[error("{pointer}: {detail}")]
    Invalid { pointer: &'static str, detail: String },
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for ScheduleError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound => ErrorKind::NotFound,
            Self::NameTaken | Self::BuiltIn => ErrorKind::Conflict,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Enqueue(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }
}

impl ScheduleError {
    fn invalid(pointer: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::Invalid { pointer, detail: detail.to_string() }
    }
}

/// The tick plus its jitter: when it really fires.
fn jittered(tick: Timestamp, jitter: Duration) -> Timestamp {
    tick.checked_add(jitter.mul_f64(rand::random::<f64>())).unwrap_or(tick)
}
