use std::time::Duration;

use anyhow::Result;
use streamspace_testkit::Percentiles;

/// Measures up to three times; in one round every measurement's 95th percentile is within the bound.
/// A neighbour on the machine can spoil a round, but none can make the engine faster than it is.
///
/// # Panics
/// When no round is good enough.
pub async fn in_one_of_three_rounds(
    bound: Duration,
    mut round: impl AsyncFnMut() -> Result<Vec<Percentiles>>,
) -> Result<()> {
    let mut seen = vec![];
    for _ in 0..3 {
        let measured = round().await?;
        if measured.iter().all(|waits| waits.p(95.0) < bound) {
            return Ok(());
        }
        seen.extend(measured.iter().map(Percentiles::to_string));
    }
    panic!("p95 is not below {bound:?} in any of three rounds: {seen:#?}")
}
