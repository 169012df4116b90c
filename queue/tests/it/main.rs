//! The engine against a real PostgreSQL, with workers in this process. What needs processes that
//! die is in `tests/`.

mod bed;
mod keys;
mod limits;
mod outcomes;
