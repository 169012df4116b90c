//! Real parts for tests: a private PostgreSQL, Redis, PgBouncer and SMTP server, OpenID providers, processes
//! that can be killed and stopped, host clocks that lie, connections that are cut.
//!
//! It knows nothing of the product. Whatever it starts is its own child, listens on loopback only,
//! keeps its files in the test run's scratch directory, and is gone when the test run is, also after
//! `kill -9`: every child has a parent-death signal, and a watchdog removes the directory.
//!
//! Starting something answers with a `Result`; waiting for something panics at its deadline with the
//! name of what was waited for, since that is a failed test.

mod browser;
mod clock;
mod nursery;
mod oidc;
mod percentiles;
mod pgbouncer;
mod ports;
mod postgres;
mod process;
mod proxy;
mod redis;
mod scratch;
mod smtp;
mod wait;

pub use browser::{Browser, Page};
pub use clock::HostClock;
pub use oidc::OidcProvider;
pub use percentiles::Percentiles;
pub use pgbouncer::PgBouncer;
pub use ports::free_port;
pub use postgres::{Database, Options, Postgres};
pub use process::{Process, Program};
pub use proxy::Proxy;
pub use redis::Redis;
pub use scratch::Scratch;
pub use smtp::{Received, Smtp, SmtpOptions, SmtpTls};
pub use wait::{eventually, holds_for};
