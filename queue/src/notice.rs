//! What may be told only after a commit: who can be claimed, who must stop, what changed.
//!
//! Notices are hints. One lost in a crash costs a poll, never a job.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use streamspace_common::{BootId, JobId, TenantId};
use uuid::Uuid;

/// Where jobs of one tenant wait in one queue, in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The queue, or queue/kind@version for kinds that only newer workers know.
    pub name: String,
    pub tenant: TenantId,
}

impl Lane {
    pub fn queue(&self) -> &str {
        self.name.split('/').next().unwrap_or(&self.name)
    }
}

/// A live event: what has changed, and its version now. Freshness may depend on it, nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    pub topic: Topic,
    pub id: Uuid,
    pub version: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    Job,
}

impl Topic {
    pub(crate) const ALL: [Self; 1] = [Self::Job];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notices {
    /// Lanes in which something became claimable, and the lowest place where.
    pub claimable: BTreeMap<Lane, Timestamp>,
    /// The earliest time at which something becomes due.
    pub due: Option<Timestamp>,
    /// Concurrency keys that may have a free slot while jobs wait for them.
    pub unblock: BTreeSet<String>,
    /// Running jobs that were asked to stop, and who runs them.
    pub cancel: Vec<(BootId, JobId)>,
    /// Pauses, limits or drains changed.
    pub controls: bool,
    /// Queues with limits in which a job ended.
    pub freed: BTreeSet<String>,
    pub events: Vec<Event>,
    /// More happened than was said: look everywhere.
    pub everything: bool,
}

/// Past this many, listeners re-read what they watch instead.
const MAX_EVENTS: usize = 4096;

impl Notices {
    pub fn claimable(&mut self, lane: Lane, order_at: Timestamp) {
        self.claimable.entry(lane).and_modify(|at| *at = order_at.min(*at)).or_insert(order_at);
    }

    pub fn due(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    pub fn changed(&mut self, job: JobId, version: i64) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(Event { topic: Topic::Job, id: job.0, version });
        }
    }

    pub fn merge(&mut self, other: Self) {
        for (lane, at) in other.claimable {
            self.claimable(lane, at);
        }
        if let Some(at) = other.due {
            self.due(at);
        }
        self.unblock.extend(other.unblock);
        self.cancel.extend(other.cancel);
        self.controls |= other.controls;
        self.freed.extend(other.freed);
        let room = MAX_EVENTS.saturating_sub(self.events.len());
        self.events.extend(other.events.into_iter().take(room));
        self.everything |= other.everything;
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
