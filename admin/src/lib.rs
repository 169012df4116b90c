//! The listener that every role has beside its work: is it alive, can it serve, what does it count.
//!
//! It stands on an address of its own, so that probes and scrapers reach it while the public port
//! is saturated, and nobody else reaches it at all. How it serves HTTP, the public port does too.

mod checks;
mod connection;
mod listener;
mod server;

pub use checks::{CheckResult, Checks, Health, Status};
pub use listener::serve;
pub use server::{Patience, Peer, serve_http};
