//! What is measured: one file a subject.

pub mod api;
pub mod blocked;
pub mod cancel;
pub mod enqueue;
pub mod history;
pub mod identity;
pub mod idle;
pub mod lanes;
pub mod latency;
pub mod memory;
pub mod throughput;
