use std::fmt;
use std::time::Duration;

/// A set of measured durations, printed as `p50 1.2ms p95 3.4ms p99 5.6ms max 7.8ms (n=1000)`.
#[derive(Debug, Clone)]
pub struct Percentiles {
    sorted: Vec<Duration>,
}

impl Percentiles {
    /// # Panics
    /// Without a single measurement: a percentile of nothing proves nothing.
    pub fn of(measured: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<_> = measured.into_iter().collect();
        assert!(!sorted.is_empty(), "nothing was measured");
        sorted.sort_unstable();
        Self { sorted }
    }

    /// The smallest measurement that at least `percent` of all do not exceed (nearest rank).
    pub fn p(&self, percent: f64) -> Duration {
        let rank = (percent / 100.0 * self.sorted.len() as f64).ceil() as usize;
        self.sorted[rank.clamp(1, self.sorted.len()) - 1]
    }

    pub fn max(&self) -> Duration {
        self.p(100.0)
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p95, p99] = [50.0, 95.0, 99.0].map(|p| self.p(p));
        let max = self.max();
        write!(f, "p50 {p50:.1?} p95 {p95:.1?} p99 {p99:.1?} max {max:.1?} (n={})", self.sorted.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_measurement_that_was_made() {
        let hundred = Percentiles::of((1..=100).rev().map(Duration::from_millis));
        assert_eq!(hundred.p(95.0), Duration::from_millis(95));
        assert_eq!(hundred.max(), Duration::from_millis(100));
        let one = Percentiles::of([Duration::from_millis(7)]);
        assert_eq!((one.p(0.0), one.p(99.0)), (Duration::from_millis(7), Duration::from_millis(7)));
    }
}
