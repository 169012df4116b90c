//! The command as a person starts it: real processes, a real PostgreSQL, killed and started again.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod admin;
mod backup;
mod client;
mod config;
mod installation;
mod migrate;
mod roles;
mod sign_in;
mod teams;
mod up;
mod users;
