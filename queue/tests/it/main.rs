//! The engine against a real PostgreSQL, with workers in this process. What needs processes that
//! die is in `tests/`.

mod batches;
mod bed;
mod claims;
mod control;
mod counting;
mod frozen;
mod keys;
mod limits;
mod lists;
mod outcomes;
mod overlapping;
mod retention;
mod rights;
mod schedules;
mod suspended;
mod sweeps;
mod transitions;
mod unknown;
mod waiting;
