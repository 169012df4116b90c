//! Which lanes a process claims from next, and from where in each.
//!
//! A lane is one tenant's jobs in one queue. Claims name lanes and start at the remembered
//! position, so they walk neither over other tenants' backlogs nor over the dead index entries
//! that an old snapshot keeps. Lanes with work take turns; a position may be wrong only upwards,
//! and whatever becomes claimable below it lowers it.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use streamspace_common::TenantId;
use uuid::Uuid;

use crate::notice::Lane;

/// A place in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub at: Timestamp,
    pub id: Uuid,
}

/// One lane's part of a claim.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ask {
    pub lane: Lane,
    pub from: Position,
    pub most: usize,
}

impl Ask {
    /// The same lane, for at most so many.
    pub(crate) fn limited(&self, most: usize) -> Self {
        Self { most, ..self.clone() }
    }
}

/// Lanes that one claim names at most.
const LANES_PER_CLAIM: usize = 16;

/// The rules of sharing, and who runs what in this process.
pub(crate) struct Share<'a> {
    /// How many more this process may claim, and how many it may hold in all.
    pub free: usize,
    pub capacity: usize,
    /// The part of a queue's slots that a tenant may hold while another one waits there.
    pub fair_share: f64,
    /// Held here: by tenant, and by queue and tenant.
    pub of_tenant: &'a dyn Fn(TenantId) -> usize,
    pub of_lane: &'a dyn Fn(&str, TenantId) -> usize,
    /// Whether nothing of the lane starts until the controls change.
    pub still: &'a dyn Fn(&Lane) -> bool,
    /// Whether the lane may be claimed in this way: limited ones go another than those that are not.
    pub open: &'a dyn Fn(&Lane) -> bool,
}

#[derive(Default)]
pub(crate) struct Lanes {
    /// Lanes that have work, as far as is known.
    known: HashMap<Lane, Known>,
    turns: VecDeque<Lane>,
    /// Those that stand still have no turn: claims would walk over them again and again.
    still: Vec<Lane>,
    /// How many lanes with work, that do not stand still, each tenant has in each queue.
    busy: HashMap<String, HashMap<TenantId, usize>>,
}

struct Known {
    from: Position,
    /// The lowest place that woke the lane since it was asked last: what a claim under way may have
    /// missed.
    woken: Option<Position>,
}

impl Lanes {
    /// Whether the queue has lanes with work that do not stand still, as far as is known.
    pub(crate) fn has_work(&self, queue: &str) -> bool {
        self.busy.contains_key(queue)
    }

    /// Something at `at` became claimable. Returns whether the lane was idle before.
    pub(crate) fn wake(&mut self, lane: &Lane, at: Timestamp) -> bool {
        let from = Position { at, id: Uuid::nil() };
        if let Some(known) = self.known.get_mut(lane) {
            known.woken = Some(known.woken.map_or(from, |woken| woken.min(from)));
            known.from = known.from.min(from);
            return false;
        }
        self.known.insert(lane.clone(), Known { from, woken: None });
        self.take_turns(lane.clone());
        true
    }

    /// Who stood still may go on. Called after what [`Share::still`] reads has changed.
    pub(crate) fn controls_changed(&mut self) {
        for lane in std::mem::take(&mut self.still) {
            self.take_turns(lane);
        }
    }

    fn take_turns(&mut self, lane: Lane) {
        *self.busy.entry(lane.queue().to_owned()).or_default().entry(lane.tenant).or_default() += 1;
        self.turns.push_back(lane);
    }

    /// A scan found the lane's first job at `at`. Returns whether that is news.
    ///
    /// Notices may be lost, and positions are no more than hints: a place below the position lowers
    /// it, so a lost notice costs seconds.
    pub(crate) fn find(&mut self, lane: &Lane, at: Timestamp) -> bool {
        // At the same time is below too: the id may be lower.
        let from = Position { at, id: Uuid::nil() };
        let is_news = self.known.get(lane).is_none_or(|known| from < known.from);
        if is_news {
            self.wake(lane, at);
        }
        is_news
    }

    /// The lanes of the next claim, whose turn it is, each with its share of the free slots.
    ///
    /// One slot of a process is kept for tenants that have nothing running here, so that a new
    /// tenant never waits for another one's long jobs.
    pub(crate) fn ask(&mut self, share: &Share<'_>) -> Vec<Ask> {
        let reserve = usize::from(share.capacity > 1);
        let only_newcomers = share.free <= reserve;
        let budget = if only_newcomers { share.free.min(1) } else { share.free - reserve };
        if budget == 0 {
            return Vec::new();
        }
        let cap = ((share.capacity as f64 * share.fair_share).ceil() as usize).max(1);
        let mut asks: Vec<Ask> = Vec::new();
        let mut passed = VecDeque::new();
        let mut shared: HashMap<String, bool> = HashMap::new();
        while asks.len() < LANES_PER_CLAIM.min(budget) {
            let Some(lane) = self.turns.pop_front() else { break };
            if (share.still)(&lane) {
                self.leave(&lane);
                self.still.push(lane);
                continue;
            }
            // First: most others cost more to look at, and of many lanes all may be closed.
            if !(share.open)(&lane) || only_newcomers && (share.of_tenant)(lane.tenant) > 0 {
                passed.push_back(lane);
                continue;
            }
            let mut room = budget;
            let is_shared = match shared.get(lane.queue()) {
                Some(known) => *known,
                None => {
                    let is_shared = self.is_shared(&lane, share);
                    shared.insert(lane.queue().to_owned(), is_shared);
                    is_shared
                }
            };
            if is_shared {
                room = room.min(cap.saturating_sub((share.of_lane)(lane.queue(), lane.tenant)));
            }
            if room == 0 {
                passed.push_back(lane);
                continue;
            }
            let Some(known) = self.known.get_mut(&lane) else { continue };
            known.woken = None;
            asks.push(Ask { from: known.from, most: room, lane });
        }
        // Who was passed over keeps its place at the front.
        while let Some(lane) = passed.pop_back() {
            self.turns.push_front(lane);
        }
        divide(&mut asks, budget);
        asks
    }

    /// Puts a lane that was asked back in line, or lets it rest when it is drained.
    pub(crate) fn answered(&mut self, ask: Ask, claimed: usize, last: Option<Position>) {
        let Some(known) = self.known.get_mut(&ask.lane) else { return };
        let drained = claimed < ask.most;
        match (known.woken, last) {
            (None, _) if drained => {
                self.rest(&ask.lane);
                return;
            }
            (None, last) => known.from = last.unwrap_or(known.from),
            (Some(woken), _) if drained => known.from = woken,
            (Some(woken), last) => known.from = last.map_or(woken, |last| last.min(woken)),
        }
        self.turns.push_back(ask.lane);
    }

    /// The claim failed: its lanes are as they were.
    pub(crate) fn unanswered(&mut self, asks: Vec<Ask>) {
        self.turns.extend(asks.into_iter().map(|ask| ask.lane));
    }

    /// The claim had nothing left for these: their turn is still to come, and they keep their place at
    /// the front, as those do that are not asked. Behind the others they would lose it to whoever is
    /// served meanwhile, again and again.
    pub(crate) fn passed(&mut self, asks: Vec<Ask>) {
        for ask in asks.into_iter().rev() {
            self.turns.push_front(ask.lane);
        }
    }

    fn rest(&mut self, lane: &Lane) {
        self.known.remove(lane);
        self.leave(lane);
    }

    fn leave(&mut self, lane: &Lane) {
        let Some(tenants) = self.busy.get_mut(lane.queue()) else { return };
        if let Some(lanes) = tenants.get_mut(&lane.tenant) {
            *lanes -= 1;
            if *lanes == 0 {
                tenants.remove(&lane.tenant);
            }
        }
        if tenants.is_empty() {
            self.busy.remove(lane.queue());
        }
    }

    /// Whether more than one tenant waits in the queue of an open lane for what may be claimed now: the
    /// same for all its open lanes.
    fn is_shared(&self, lane: &Lane, share: &Share<'_>) -> bool {
        let Some(tenants) = self.busy.get(lane.queue()) else { return false };
        let mut other = Lane { name: lane.queue().to_owned(), tenant: lane.tenant };
        tenants.keys().filter(|tenant| **tenant != lane.tenant).any(|tenant| {
            other.tenant = *tenant;
            !(share.still)(&other) && (share.open)(&other)
        })
    }
}

/// Divides the budget among the asks, none above its room; what one can't use another may.
fn divide(asks: &mut [Ask], budget: usize) {
    let mut order: Vec<usize> = (0..asks.len()).collect();
    order.sort_by_key(|&i| asks[i].most);
    let mut left = budget;
    for (done, &i) in order.iter().enumerate() {
        let even = left.div_ceil(asks.len() - done);
        asks[i].most = asks[i].most.min(even);
        left -= asks[i].most;
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
