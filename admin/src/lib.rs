//! The listener that every role has beside its work: is it alive, can it serve, what does it count.
//!
//! It stands on an address of its own, so that probes and scrapers reach it while the public port
//! is saturated, and nobody else reaches it at all.

mod checks;
mod listener;

pub use checks::{CheckResult, Checks, Health, Status};
pub use listener::serve;
