//! The engine's promises, proven with real processes on a real PostgreSQL.
//!
//! Each module is one promise, each test a short story. The workers and schedulers are processes of
//! `src/bin/fleet.rs`; what their jobs did is counted in a table that the jobs themselves write.

mod access;
mod batches;
mod cancelling;
mod crashes;
mod databases;
mod deploys;
mod enqueueing;
mod fairness;
mod handlers;
mod keys;
mod migrating;
mod queues;
mod requests;
mod scheduling;
mod states;
mod support;
mod wakeups;
