//! Work that goes on for long and may take its time.

use std::time::Duration;

use streamspace_queue::{Attempt, Failure};
use tokio::time::Instant;

/// Of the time that a step takes, so much is rested after it: what others claim and complete meanwhile
/// comes first.
const REST: u32 = 4;
const LONGEST: Duration = Duration::from_secs(2);

/// After a step that began then.
pub(crate) async fn rest(attempt: &Attempt, began: Instant) -> Result<(), Failure> {
    tokio::select! {
        () = tokio::time::sleep((began.elapsed() * REST).min(LONGEST)) => Ok(()),
        () = attempt.cancel.cancelled() => Err(Failure::Cancelled),
    }
}
