//! What a job kind is: its payload, its policy and its body, in one place.

use std::{future::Future, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{
    attempt::Attempt,
    outcome::{Done, Failure},
};

/// One kind of work. The value is its payload: ids, never copies and never a secret.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// `<slice>.<verb>`, which is also the path of the file.
    const KIND: &'static str;
    /// Slow work has a queue of its own, so that it delays no other.
    const QUEUE: &'static str;
    /// Raised when a new payload can't be read by the last release; old workers then leave the job
    /// to newer ones. A kind reads all versions up to its own.
    const VERSION: i16 = 1;
    const TIMEOUT: Duration = minutes(5);
    const ATTEMPTS: i32 = 5;
    const BACKOFF: Backoff = Backoff::DEFAULT;
    /// How long the body may take to stop after its token fired, before it is dropped.
    const GRACE: Duration = seconds(5);
    /// The creator's rights are checked again when it starts; without them it is cancelled.
    const FOR_A_PERSON: bool = false;
    /// Whether people may put it on a schedule, with the JSON schema of its payload.
    const SCHEDULABLE: Option<fn() -> serde_json::Value> = None;

    /// What the body needs beside its payload: its slice's ports.
    type Ctx: Send + Sync + 'static;

    /// At most this many running per key, over the whole fleet.
    fn slots(&self) -> Vec<Slot> {
        Vec::new()
    }

    /// A second enqueue under the same key returns the first job.
    fn unique(&self) -> Option<Unique> {
        None
    }

    /// Does the work. It may be run more than once, so it re-reads the truth, is safe to repeat,
    /// and commits its effect through [`Attempt::commit`] or [`Attempt::step`].
    fn run(self, ctx: &Self::Ctx, attempt: &Attempt) -> impl Future<Output = Result<Done, Failure>> + Send;
}

/// In bytes.
const LONGEST_KEY: usize = 200;
const HASH: usize = 32;

/// A key as it is stored. An index takes no more than 2,700 bytes of it, and a job that it refuses can
/// be neither started nor ended: a long key keeps its beginning, for people, and has a hash for the rest.
pub(crate) fn stored_key(key: String) -> String {
    if key.len() <= LONGEST_KEY {
        return key;
    }
    let hash: String = Sha256::digest(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    let beginning = key.floor_char_boundary(LONGEST_KEY - 2 * HASH - 1);
    format!("{}~{hash}", &key[..beginning])
}

/// A concurrency key and its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub(crate) key: String,
    pub(crate) limit: i16,
    pub(crate) everywhere: bool,
}

impl Slot {
    /// At most `limit` running under `key` within the job's tenant.
    pub fn per_tenant(key: impl Into<String>, limit: i16) -> Self {
        Self { key: stored_key(key.into()), limit: limit.max(1), everywhere: false }
    }

    /// At most `limit` running under `key` in the installation.
    pub fn everywhere(key: impl Into<String>, limit: i16) -> Self {
        Self { key: stored_key(key.into()), limit: limit.max(1), everywhere: true }
    }
}

/// A key that only one job of its kind and tenant holds at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    pub(crate) key: String,
    pub(crate) while_: UniqueWhile,
    pub(crate) ttl: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UniqueWhile {
    Waiting = 1,
    Unfinished = 2,
    Kept = 3,
}

impl Unique {
    /// Until a worker takes the job: a request that arrives during the run makes a second one.
    ///
    /// A duplicate keeps the job from starting until its transaction ends, so that the job sees what was
    /// written before. Transactions that overlap without a gap keep it waiting as long as they do: let
    /// those that enqueue such a job be short.
    pub fn while_waiting(key: impl Into<String>) -> Self {
        Self { key: stored_key(key.into()), while_: UniqueWhile::Waiting, ttl: None }
    }

    /// Until the job is over.
    pub fn until_finished(key: impl Into<String>) -> Self {
        Self { key: stored_key(key.into()), while_: UniqueWhile::Unfinished, ttl: None }
    }

    /// For a time, whatever becomes of the job.
    pub fn kept_for(key: impl Into<String>, ttl: Duration) -> Self {
        Self { key: stored_key(key.into()), while_: UniqueWhile::Kept, ttl: Some(ttl) }
    }

    /// No longer than this.
    pub fn at_most(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }
}

/// How long to wait before the next attempt: doubling, jittered, capped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub first: Duration,
    pub cap: Duration,
}

impl Backoff {
    pub const DEFAULT: Self = Self { first: seconds(2), cap: minutes(10) };

    /// After an outage of our own database. Each further outage of a job waits longer.
    pub(crate) const OUTAGE: Self = Self { first: seconds(4), cap: seconds(4) };

    /// The wait after the `attempt`th attempt failed (1 is the first). `spread` in 0..1 places it
    /// within the upper half of its range, so that what failed together is not retried together.
    pub fn wait(&self, attempt: i32, spread: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).clamp(0, 30) as u32;
        let full = self.first.saturating_mul(1 << doublings).min(self.cap);
        full.mul_f64(0.5 + 0.5 * spread.clamp(0.0, 1.0))
    }
}

pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_key_is_stored_short_and_stays_itself() {
        assert_eq!(stored_key("k".repeat(200)), "k".repeat(200));
        // Cut between its characters, which have two bytes and three.
        let long = format!("é{}", "€".repeat(1_000));
        let stored = stored_key(long.clone());
        assert!(stored.len() <= 200 && stored.starts_with("é€"), "{stored}");
        assert_eq!(stored, stored_key(long.clone()));
        assert_ne!(stored, stored_key(long + "!"));
    }
}
