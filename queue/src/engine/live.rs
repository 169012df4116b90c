//! An attempt that runs here, and why it was told to stop: also one whose claim is still under way.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use streamspace_common::JobId;
use tokio_util::sync::CancellationToken;

use super::{Engine, acknowledge::Ack};
use crate::{attempt::Hold, claim::Claimed};

/// Cancels that are remembered for a claim under way.
const MOST_EARLY: usize = 1000;

/// An attempt that runs here.
pub(crate) struct Live {
    pub hold: Arc<Hold>,
    pub queue: String,
    pub claimed: std::time::Instant,
    reason: AtomicU8,
    pub(super) stop: CancellationToken,
}

/// Why an attempt was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stop {
    Cancelled = 1,
    TimedOut = 2,
    HandedBack = 3,
    /// The job is another worker's by now.
    Lost = 4,
}

impl Live {
    pub(super) fn new(row: &Claimed) -> Self {
        Self {
            hold: Arc::new(Hold::new(row)),
            queue: row.queue.clone(),
            claimed: std::time::Instant::now(),
            reason: 0.into(),
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn stop(&self, why: Stop) {
        // The first reason stands.
        let _ = self.reason.compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire);
        self.stop.cancel();
    }

    pub(super) fn stopped(&self) -> Option<Stop> {
        match self.reason.load(Ordering::Acquire) {
            1 => Some(Stop::Cancelled),
            2 => Some(Stop::TimedOut),
            3 => Some(Stop::HandedBack),
            4 => Some(Stop::Lost),
            _ => None,
        }
    }
}

impl Engine {
    /// A claim begins or ends.
    pub(super) fn count_claim(&self) {
        let mut early = self.early.lock().expect("no panic while it was held");
        self.claims.fetch_add(1, Ordering::AcqRel);
        early.clear();
    }

    /// Tells a running job to stop, if it runs here or is about to.
    pub(super) fn cancel(&self, job: JobId) {
        let live = {
            let attempts = self.attempts.lock().expect("no panic while it was held");
            let live = attempts.get(&job).cloned();
            if live.is_none() {
                let mut early = self.early.lock().expect("no panic while it was held");
                // Of more than that the pulse tells once they run.
                if is_under_way(self.claims.load(Ordering::Acquire)) && early.len() < MOST_EARLY {
                    early.insert(job);
                }
            }
            live
        };
        if let Some(live) = live {
            self.deliver_cancel(&live);
        }
    }

    pub(super) fn deliver_cancel(&self, live: &Live) {
        live.stop(Stop::Cancelled);
        self.delivered.lock().expect("no panic while it was held").push((live.hold.id, live.hold.fence));
        // Wakes the acknowledger, which records the moment.
        let _ = self.acks.send(Ack::Delivered);
    }
}

/// Claims are counted when they begin and when they end.
pub(super) fn is_under_way(claims: usize) -> bool {
    claims % 2 == 1
}
