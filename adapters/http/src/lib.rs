//! Other people's HTTP servers: the real implementations of ports that reach out.
//!
//! Whoever may name a server to the product must not reach what only the product can. So there is one
//! way out (`Outbound`): addresses that are not public are refused unless the operator names them,
//! and a redirect, a slow answer and a large one are all failures.

mod cache;
mod identity_providers;
mod outbound;
mod targets;

pub use self::{identity_providers::HttpProviders, outbound::Outbound};
