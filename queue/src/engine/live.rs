//! An attempt that runs here, and why it was told to stop.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio_util::sync::CancellationToken;

use crate::{attempt::Hold, claim::Claimed};

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
