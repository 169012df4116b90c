//! The API, served for real on loopback over a private PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a failed test is what a panic is here")]
#![expect(clippy::print_stdout, reason = "figures, and seeds that repeat a run")]

mod app;
mod audit;

mod access;
mod api_keys;
mod cli_sign_in;
mod cors;
mod document;
mod edges;
mod forge;
mod guessing;
mod idempotency;
mod limits;
mod links;
mod lists;
mod mfa;
mod oidc;
mod oidc_accounts;
mod oidc_lies;
mod oidc_providers;
mod people;
mod registration;
mod secrets;
mod settings;
mod sign_in;
mod sockets;
mod strings;
mod teams;
mod tenants_apart;
mod users;
mod waiting;
mod walk;
