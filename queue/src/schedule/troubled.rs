//! Schedules that could not be fired, and when each is tried again: what is wrong with one costs the
//! others nothing.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use streamspace_common::ScheduleId;
use uuid::Uuid;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// What one scheduler knows of them. It need not be kept: another tries for itself.
#[derive(Debug, Default)]
pub struct Troubled(HashMap<ScheduleId, Trouble>);

#[derive(Debug)]
struct Trouble {
    /// Of the schedule: one that was changed since is tried at once.
    row_version: i64,
    failures: u32,
    until: Instant,
}

impl Troubled {
    /// Counts a failure; answers how long the schedule is left alone.
    pub(super) fn failed(&mut self, id: ScheduleId, row_version: i64, now: Instant) -> Duration {
        let before = self.0.get(&id).filter(|trouble| trouble.row_version == row_version);
        let failures = before.map_or(0, |trouble| trouble.failures);
        let rest = FIRST.saturating_mul(1 << failures.min(10)).min(LONGEST);
        self.0.insert(id, Trouble { row_version, failures: failures + 1, until: now + rest });
        rest
    }

    pub(super) fn recovered(&mut self, id: ScheduleId) {
        self.0.remove(&id);
    }

    /// The schedules to be left alone now, with the versions that failed.
    pub(super) fn resting(&mut self, now: Instant) -> (Vec<Uuid>, Vec<i64>) {
        // Of what was not tried again when it could be, another scheduler or its deletion took care.
        self.0.retain(|_, trouble| trouble.until + LONGEST > now);
        let resting = self.0.iter().filter(|(_, trouble)| trouble.until > now);
        resting.map(|(id, trouble)| (id.0, trouble.row_version)).unzip()
    }

    /// Until the first of them is tried again.
    pub(super) fn next_in(&self, now: Instant) -> Option<Duration> {
        let rests = self.0.values().filter_map(|trouble| trouble.until.checked_duration_since(now));
        rests.filter(|rest| !rest.is_zero()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_a_minute_and_begin_anew_after_a_change_or_a_success() {
        let (mut troubled, id, now) = (Troubled::default(), ScheduleId::new(), Instant::now());
        let rests: Vec<u64> = (0..40).map(|_| troubled.failed(id, 1, now).as_secs()).collect();
        assert_eq!(rests[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(rests[39], 60);
        assert_eq!(troubled.failed(id, 2, now), FIRST);
        troubled.failed(id, 2, now);
        troubled.recovered(id);
        assert_eq!(troubled.failed(id, 2, now), FIRST);
    }

    #[test]
    fn only_what_rests_is_left_alone() {
        let (mut troubled, now) = (Troubled::default(), Instant::now());
        let (once, twice) = (ScheduleId::new(), ScheduleId::new());
        troubled.failed(once, 7, now);
        troubled.failed(twice, 8, now);
        troubled.failed(twice, 8, now);
        assert_eq!(troubled.next_in(now), Some(FIRST));
        assert_eq!(troubled.resting(now).0.len(), 2);
        assert_eq!(troubled.resting(now + FIRST), (vec![twice.0], vec![8]));
        assert_eq!(troubled.next_in(now + FIRST), Some(FIRST));
        assert_eq!(troubled.resting(now + FIRST * 2), (vec![], vec![]));
        assert_eq!(troubled.next_in(now + FIRST * 2), None);
        // Nothing is kept of what was not tried again for long.
        troubled.resting(now + LONGEST * 2);
        assert!(troubled.0.is_empty());
    }
}
