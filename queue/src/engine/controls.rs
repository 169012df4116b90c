//! Pauses, limits and suspended tenants as this process last read them.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use streamspace_common::{PLATFORM, TenantId};

use crate::notice::Lane;

/// One row of `queue_controls`, as the pulse reads it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Control {
    pub queue: String,
    pub tenant_id: TenantId,
    pub paused: bool,
    pub max_running: Option<i32>,
    pub rate_count: Option<i32>,
    pub rate_period_ms: Option<i64>,
}

impl Control {
    pub(crate) fn limits(&self) -> bool {
        self.max_running.is_some() || self.rate_count.is_some()
    }
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Controls {
    rows: HashMap<String, Vec<Control>>,
    suspended: HashSet<TenantId>,
    /// An operator asked this worker to take no more jobs.
    drained: bool,
}

impl Controls {
    pub(crate) fn new(mut rows: Vec<Control>, drained: bool) -> Self {
        // In one order, so that the same rows are no change: buckets that are filled move them about.
        rows.sort_unstable_by_key(|row| row.tenant_id);
        let mut by_queue: HashMap<String, Vec<Control>> = HashMap::new();
        for row in rows {
            by_queue.entry(row.queue.clone()).or_default().push(row);
        }
        Self { rows: by_queue, suspended: HashSet::new(), drained }
    }

    /// With tenants of which nothing starts.
    pub(crate) fn without(self, suspended: HashSet<TenantId>) -> Self {
        Self { suspended, ..self }
    }

    fn of(&self, lane: &Lane) -> impl Iterator<Item = &Control> {
        let rows = self.rows.get(lane.queue()).map_or(&[][..], Vec::as_slice);
        rows.iter().filter(move |row| row.tenant_id == PLATFORM || row.tenant_id == lane.tenant)
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.drained
    }

    pub(crate) fn is_paused(&self, lane: &Lane) -> bool {
        self.drained || self.suspended.contains(&lane.tenant) || self.of(lane).any(|row| row.paused)
    }

    pub(crate) fn is_limited(&self, lane: &Lane) -> bool {
        self.of(lane).any(Control::limits)
    }

    /// Whether a job that ends in this queue may let another one start.
    pub(crate) fn limits_queue(&self, queue: &str) -> bool {
        self.rows.get(queue).is_some_and(|rows| rows.iter().any(Control::limits))
    }

    pub(crate) fn limits_any(&self) -> bool {
        self.rows.values().flatten().any(Control::limits)
    }

    /// All of them, beginning behind the one that came last.
    pub(crate) fn limited_queues_after(&self, last: &str) -> Vec<&str> {
        let limited = self.rows.iter().filter(|(_, rows)| rows.iter().any(Control::limits));
        let mut queues: Vec<_> = limited.map(|(queue, _)| queue.as_str()).collect();
        queues.sort_unstable_by_key(|queue| (*queue <= last, *queue));
        queues
    }
}
