//! What the stories share: a laboratory with a database of its own, its fleet, and the long tests.

mod acts;
mod api;
mod fleet;
mod lab;
mod long;
mod rounds;
mod turns;

pub use acts::enqueue_as;
pub use api::{Api, Organisation};
pub use fleet::{LEASE, Role, metric};
pub use lab::Lab;
pub use long::long_test;
pub use rounds::in_one_of_three_rounds;
pub use std::time::{Duration, Instant};
pub use streamspace_testkit::{HostClock, Percentiles, Postgres, Process, eventually, holds_for};
pub use streamspace_tests::{
    Script,
    script::Move::{self, *},
    stage::{Brief, Count, EvolvedV1, EvolvedV2, Novel, Play},
};

pub const SOON: Duration = Duration::from_secs(10);
pub const LATER: Duration = Duration::from_secs(60);

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A figure for whoever reads the run's output; written past the capture of the test runner.
macro_rules! report {
    ($($text:tt)*) => {
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("figure: {}\n", format_args!($($text)*)));
    };
}
pub(crate) use report;

/// A job that plays these moves.
pub fn play(moves: impl IntoIterator<Item = Move>) -> Play {
    Play(Script::of(moves))
}

pub fn note(name: &str) -> Move {
    Note(name.into())
}

pub fn commit(name: &str) -> Move {
    Commit(name.into())
}

pub fn step(name: &str) -> Move {
    Step(name.into())
}
