//! What the engine's tests and the processes that they start share: job kinds that do as their
//! payload says, and the table in which they count what they did.
//!
//! The tests are in `tests/it`, one module per promise.

pub mod script;
pub mod stage;

pub use script::{Move, Script};
