//! Waiting for a condition. Nothing in a test sleeps and hopes.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Asks `check` until it answers `Some`, at first every 2 ms, later every 50 ms.
///
/// # Panics
/// At the deadline, naming `what`.
pub async fn eventually<T>(
    deadline: Duration,
    what: impl Display,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(50));
    }
}

/// Watches that `check` stays true for a while: the one honest way to prove that nothing happens.
///
/// # Panics
/// As soon as it is false, naming `what`.
pub async fn holds_for(time: Duration, what: impl Display, mut check: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < time {
        assert!(check().await, "no longer true after {:?}: {what}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
