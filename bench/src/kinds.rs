//! The jobs that are run: what a handler can be at its cheapest, a little work, a little waiting.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use streamspace_queue::{Attempt, Done, Failure, Job, Registry, Slot};

/// What the handlers of one worker have done.
#[derive(Default)]
pub struct Tally {
    pub done: AtomicU64,
    /// From the stamp in the payload to the handler's start.
    pub waits: Mutex<Vec<Duration>>,
    /// When handlers found themselves cancelled.
    pub cancelled: Mutex<Vec<Instant>>,
}

impl Tally {
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn one(&self) -> Result<Done, Failure> {
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(Done::nothing())
    }
}

/// Each kind has its own queue, so that a worker can be given the one that is measured.
pub fn registry(tally: &Arc<Tally>) -> Registry {
    Registry::new()
        .register::<Noop>(tally.clone())
        .register::<Spin>(tally.clone())
        .register::<Nap>(tally.clone())
        .register::<Doze>(tally.clone())
        .register::<Stamped>(tally.clone())
        .register::<Endless>(tally.clone())
        .register::<Keyed>(tally.clone())
}

/// What a handler takes before it is done.
enum Takes {
    Nothing,
    /// Work for one core.
    Processor(Duration),
    /// Waiting, as for an answer.
    Time(Duration),
}

/// Those that differ in nothing else: kind, queue, what it takes.
const PLAIN: [(&str, &str, Takes); 4] = [
    ("bench.noop", "noop", Takes::Nothing),
    ("bench.spin", "spin", Takes::Processor(Duration::from_micros(50))),
    ("bench.nap", "nap", Takes::Time(Duration::from_millis(5))),
    ("bench.doze", "doze", Takes::Time(Duration::from_secs(10))),
];

pub type Noop = Plain<0>;
pub type Spin = Plain<1>;
pub type Nap = Plain<2>;
pub type Doze = Plain<3>;

#[derive(Serialize, Deserialize)]
pub struct Plain<const AT: usize> {
    pub n: u64,
}

impl<const AT: usize> Job for Plain<AT> {
    const KIND: &'static str = PLAIN[AT].0;
    const QUEUE: &'static str = PLAIN[AT].1;
    type Ctx = Tally;

    async fn run(self, tally: &Tally, _: &Attempt) -> Result<Done, Failure> {
        match PLAIN[AT].2 {
            Takes::Nothing => {}
            Takes::Processor(time) => {
                let began = Instant::now();
                while began.elapsed() < time {
                    std::hint::spin_loop();
                }
            }
            Takes::Time(time) => tokio::time::sleep(time).await,
        }
        tally.one()
    }
}

/// Knows when it was enqueued, by this machine's clock.
#[derive(Serialize, Deserialize)]
pub struct Stamped {
    pub enqueued_us: i64,
}

impl Stamped {
    pub fn now() -> Self {
        Self { enqueued_us: jiff::Timestamp::now().as_microsecond() }
    }
}

impl Job for Stamped {
    const KIND: &'static str = "bench.stamped";
    const QUEUE: &'static str = "stamped";
    type Ctx = Tally;

    async fn run(self, tally: &Tally, _: &Attempt) -> Result<Done, Failure> {
        let waited = jiff::Timestamp::now().as_microsecond() - self.enqueued_us;
        let waited = Duration::from_micros(waited.max(0).unsigned_abs());
        tally.waits.lock().expect("no panic while it was held").push(waited);
        tally.one()
    }
}

/// Runs until it is told to stop.
#[derive(Serialize, Deserialize)]
pub struct Endless {
    pub n: u64,
}

impl Job for Endless {
    const KIND: &'static str = "bench.endless";
    const QUEUE: &'static str = "endless";
    type Ctx = Tally;

    async fn run(self, tally: &Tally, attempt: &Attempt) -> Result<Done, Failure> {
        tally.done.fetch_add(1, Ordering::Relaxed);
        attempt.cancel.cancelled().await;
        tally.cancelled.lock().expect("no panic while it was held").push(Instant::now());
        Err(Failure::Cancelled)
    }
}

/// One at a time in the whole installation.
#[derive(Serialize, Deserialize)]
pub struct Keyed {
    pub n: u64,
}

impl Job for Keyed {
    const KIND: &'static str = "bench.keyed";
    const QUEUE: &'static str = "keyed";
    type Ctx = Tally;

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::everywhere("bench", 1)]
    }

    async fn run(self, tally: &Tally, attempt: &Attempt) -> Result<Done, Failure> {
        attempt.cancel.cancelled().await;
        tally.one()
    }
}
