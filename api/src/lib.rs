//! The REST API: axum, strict JSON in, problems out, OpenAPI from the code.
//!
//! Read in this order:
//!
//! 1. [`operations`], [`access`] — every operation with what it needs, and the gate that asks for it.
//! 2. [`routes`] — the operations, one file per slice: extract, operate, render.
//! 3. [`extract`], [`page`], [`problem`] — what a request may look like, and what refuses it.
//! 4. [`idempotency`] — requests that may be sent twice and act once.
//! 5. [`watch`], [`socket`] — waiting and streaming, without a database connection.
//! 6. [`limit`] — how often anybody may ask.
//! 7. [`request`], [`mod@router`] — what surrounds every request, and how it is put together.

pub mod access;
mod address;
pub mod browser;
pub mod caller;
mod calls;
mod cors;
pub mod extract;
pub mod idempotency;
pub mod limit;
pub mod openapi;
pub mod operations;
pub mod page;
mod pages;
mod permissions;
pub mod problem;
pub mod request;
pub mod router;
pub mod routes;
pub mod serve;
pub mod socket;
pub mod state;
mod used;
pub mod view;
pub mod watch;

pub use self::{
    openapi::openapi_json,
    permissions::permissions_md,
    router::router,
    serve::{serve, turn_away},
    state::{Api, Parts},
};
