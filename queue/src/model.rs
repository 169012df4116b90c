//! The states of a job, and what may follow what.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "job_state", rename_all = "lowercase")]
pub enum State {
    /// Waits for its time.
    Scheduled,
    /// Can be claimed.
    Queued,
    /// Waits for a concurrency key. Readers see it as `queued`.
    Blocked,
    Running,
    /// Failed, and waits for its next attempt.
    Retrying,
    /// Asked to be run again later; no attempt was burned.
    Snoozed,
    /// Waits for an event.
    Parked,
    Succeeded,
    Failed,
    Cancelled,
}

impl State {
    pub const ALL: [Self; 10] = [
        Self::Scheduled,
        Self::Queued,
        Self::Blocked,
        Self::Running,
        Self::Retrying,
        Self::Snoozed,
        Self::Parked,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Nothing happens to it any more, unless somebody retries it.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// No worker has it, and it is not over.
    pub fn is_waiting(self) -> bool {
        !self.is_terminal() && self != Self::Running
    }

    /// The name that readers see.
    pub fn public(self) -> Self {
        if self == Self::Blocked { Self::Queued } else { self }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Blocked => "blocked",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Snoozed => "snoozed",
            Self::Parked => "parked",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the engine may ever move a job from here to `next`. The SQL of claims,
    /// acknowledgements and promotions each makes some of these moves; nothing makes another.
    pub fn may_become(self, next: Self) -> bool {
        use State::*;
        match self {
            // Due, or cancelled before that.
            Scheduled | Retrying | Snoozed | Parked => matches!(next, Queued | Cancelled),
            // Claimed, found without a slot, cancelled, or of a kind that no worker will ever know.
            Queued => matches!(next, Running | Blocked | Cancelled | Failed),
            Blocked => matches!(next, Queued | Cancelled),
            // Any outcome; handed back or rescued; claimed but without a slot.
            Running => !matches!(next, Running | Scheduled),
            // An operator's retry.
            Failed | Cancelled => next == Queued,
            Succeeded => false,
        }
    }
}
