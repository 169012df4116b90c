//! What the product does, one module per slice: operations, their SQL and the bodies of their jobs.
//!
//! An operation takes the caller's transaction (`Tx`), checks the right to it, writes rows and what
//! the audit should say, enqueues jobs, and leaves the commit to the caller, so operations compose.
//! Nothing here knows HTTP.

pub mod api_keys;
pub mod audit;
pub mod callers;
pub mod idempotency;
pub mod identity;
pub mod jobs;
pub mod links;
pub mod mail;
pub mod oidc;
mod opaque;
pub mod registry;
pub mod settings;
pub mod sign_in;
pub mod teams;
pub mod tickets;

pub use registry::{Ports, built_in, registry, schedules};
