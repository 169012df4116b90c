//! The job engine: durable jobs on PostgreSQL, run by apalis's worker.
//!
//! Read in this order:
//!
//! 1. [`job`] — a kind of work: its payload, its policy, its body. [`outcome`] — what a body says
//!    should happen next.
//! 2. [`Tx`] and [`enqueue()`] — a job is a row in the caller's own transaction; what others should
//!    know is told after the commit ([`notice`], [`bus`]).
//! 3. [`model`] — the states of a job and the moves between them.
//! 4. `claim`, `lanes` — how workers find the next jobs: per tenant and queue, in order, each by one
//!    worker only, without walking over what they may not take.
//! 5. [`attempt`], `settle` — how an attempt ends: with its effect, once, under a fencing token.
//! 6. `keys`, `events` — at most n at a time; park until something happens.
//! 7. `engine` — the loops of a worker process: fetch, execute, acknowledge, beat, pulse, reap, sweep,
//!    promote.
//! 8. [`batch`] — work over many items; [`schedule`] — work at set times; [`retention`] — what goes.
//! 9. [`inspect`], [`control`], [`queues`], [`workers`], [`depth`] — what operators see and do; [`tenants`] —
//!    when a tenant is suspended or goes.
//!
//! What holds it together: **the fence**. Claiming a job raises its fence, and so does every end of
//! an attempt, be it an acknowledgement, a rescue or a hand-back. So an attempt owns its job exactly
//! while its token equals the row's; every statement that speaks for an attempt names the token,
//! and a stale one changes nothing. Leases need not be exact, clocks need not agree, and answers
//! may be lost: the worst that happens is that work is done again.
//!
//! All time is the database's (`queue.now()`), all notices are hints with a poll beneath them, and
//! nothing is counted that could be looked up.

pub mod attempt;
pub mod batch;
pub mod bus;
mod claim;
pub mod control;
pub mod db;
pub mod depth;
mod engine;
pub mod enqueue;
mod events;
mod handle;
pub mod inspect;
pub mod job;
mod keys;
mod lanes;
mod listener;
pub mod model;
pub mod notice;
mod notifier;
pub mod outcome;
pub mod queues;
#[cfg(feature = "redis")]
mod redis;
pub mod registry;
pub mod retention;
pub mod schedule;
pub mod schema;
mod settle;
pub mod tenants;
pub mod tx;
mod wire;
pub mod workers;

pub use attempt::{Attempt, Progress};
pub use db::{Db, DbOptions};
pub use engine::{Behind, Ended, MayAct, Rights, WorkerOptions, run_worker};
pub use enqueue::{EnqueueError, Enqueued, Options, enqueue, enqueue_many, enqueue_with};
pub use handle::{Listen, Queue, QueueOptions, Release, StartError};
pub use job::{Backoff, Job, Slot, Unique, hours, minutes, seconds};
pub use model::State;
pub use outcome::{Done, Failure};
pub use registry::Registry;
pub use tx::{Request, Tx};
