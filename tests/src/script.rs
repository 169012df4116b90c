//! A payload that says what its job shall do, so that a test reads as one story.

use serde::{Deserialize, Serialize};

/// What a job of a test does, move by move.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Script {
    pub moves: Vec<Move>,
    /// A concurrency key of the tenant, with its limit.
    pub slot: Option<(String, i16)>,
    /// A unique key, until the job is finished.
    pub unique: Option<String>,
    /// Whether each run writes the row `start` first.
    pub announced: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Move {
    /// Writes a row at once, as an effect that nothing fences.
    Note(String),
    /// Writes a row through `attempt.commit`: with the fence, and with the job's completion.
    Commit(String),
    /// Does that, and the process kills itself before anyone hears of it.
    CommitAndDie(String),
    /// Writes a row through `attempt.step`: once per job, however often it runs.
    Step(String),
    /// Waits, and stops when it is asked to.
    Sleep(u64),
    /// Waits, and does not care.
    Deaf(u64),
    /// Blocks its thread: neither cancelled nor dropped. Writes the row `unblocked` when it is over.
    Block(u64),
    /// Waits until it is asked to stop, and writes the row `asked to stop` when that happens.
    UntilCancelled,
    Panic,
    /// Ends with a result of this many bytes.
    Answer(usize),
    Retry,
    Fail,
    Snooze(u64),
    /// Parks for an event, at most this many milliseconds.
    Park(String, u64),
    /// Reports a percentage.
    Progress(u8),
    /// Leaves a value for the next attempt, and writes `checkpoint <value before>`.
    Checkpoint(i64),
    /// The process kills itself, as by `kill -9`.
    Die,
    /// Only in the first `n` runs, however they ended.
    Runs(u64, Box<Move>),
}

impl Move {
    pub fn first(self) -> Self {
        self.in_first(1)
    }

    pub fn in_first(self, runs: u64) -> Self {
        Self::Runs(runs, Box::new(self))
    }
}

impl Script {
    pub fn of(moves: impl IntoIterator<Item = Move>) -> Self {
        Self { moves: moves.into_iter().collect(), announced: true, ..Self::default() }
    }

    /// Does nothing and writes nothing: for counting the engine's own speed.
    pub fn idle() -> Self {
        Self::default()
    }

    pub fn with_slot(mut self, key: &str, limit: i16) -> Self {
        self.slot = Some((key.into(), limit));
        self
    }

    pub fn unique(mut self, key: &str) -> Self {
        self.unique = Some(key.into());
        self
    }
}
