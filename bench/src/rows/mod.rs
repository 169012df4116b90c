//! What is measured: one file a subject.

pub mod throughput;
