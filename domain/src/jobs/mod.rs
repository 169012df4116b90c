//! Jobs as people meet them: who sees which, who may do what to them; queues, workers, schedules.
//!
//! A person sees the jobs that were made for them, operators every job of the tenant, platform
//! administrators all. What concerns the installation belongs to the platform: its administrators
//! change it for everyone, a tenant's roles for the tenant's jobs.

mod error;
mod guards;
#[expect(clippy::module_inception, reason = "a kind's name is its path, and this slice is called jobs")]
pub mod jobs;
mod operations;
pub mod queues;
pub mod schedules;
mod visibility;
pub mod workers;

pub use streamspace_queue::{
    control::Change,
    inspect::{BatchCounts, Filter, JobError, JobRow as Job, Page, Position, Reason, Stats, Waiting},
};

pub use self::{
    error::Error,
    operations::{Changed, cancel, change_matching, delete, get, list, retry, stats, waiting},
    visibility::scope,
};
