//! The API, served for real on loopback over a private PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a failed test is what a panic is here")]

mod app;
mod audit;

mod access;
mod api_keys;
mod cli_sign_in;
mod document;
mod edges;
mod idempotency;
mod lists;
mod settings;
mod sign_in;
mod sockets;
mod strings;
mod teams;
mod waiting;
