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
    /// Whether the lane may be claimed now: not paused, and not limited (those go another way).
    pub open: &'a dyn Fn(&Lane) -> bool,
}

#[derive(Default)]
pub(crate) struct Lanes {
    /// Lanes that have work, as far as is known.
    known: HashMap<Lane, Known>,
    turns: VecDeque<Lane>,
    /// How many lanes with work each tenant has in each queue.
    busy: HashMap<String, HashMap<TenantId, usize>>,
}

struct Known {
    from: Position,
    /// The lowest place that woke the lane since it was asked last: what a claim under way may have
    /// missed.
    woken: Option<Position>,
}

impl Lanes {
    /// Something at `at` became claimable. Returns whether the lane was idle before.
    pub(crate) fn wake(&mut self, lane: &Lane, at: Timestamp) -> bool {
        let from = Position { at, id: Uuid::nil() };
        if let Some(known) = self.known.get_mut(lane) {
            known.woken = Some(known.woken.map_or(from, |woken| woken.min(from)));
            known.from = known.from.min(from);
            return false;
        }
        self.known.insert(lane.clone(), Known { from, woken: None });
        *self.busy.entry(lane.queue().to_owned()).or_default().entry(lane.tenant).or_default() += 1;
        self.turns.push_back(lane.clone());
        true
    }

    /// A scan found the lane's first job at `at`. Returns whether that is news.
    ///
    /// Notices may be lost, and positions are no more than hints: a place below the position lowers
    /// it, so a lost notice costs seconds.
    pub(crate) fn find(&mut self, lane: &Lane, at: Timestamp) -> bool {
        match self.known.get(lane) {
            // At the same time is below too: the id may be lower.
            Some(known) if known.from.at < at => false,
            _ => {
                self.wake(lane, at);
                true
            }
        }
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
        while asks.len() < LANES_PER_CLAIM.min(budget) {
            let Some(lane) = self.turns.pop_front() else { break };
            let Some(known) = self.known.get_mut(&lane) else { continue };
            let mut room = budget;
            if is_shared(&self.busy, &lane, share.open) {
                room = room.min(cap.saturating_sub((share.of_lane)(lane.queue(), lane.tenant)));
            }
            if only_newcomers && (share.of_tenant)(lane.tenant) > 0 {
                room = 0;
            }
            if room == 0 || !(share.open)(&lane) {
                passed.push_back(lane);
                continue;
            }
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
}

/// Whether another tenant waits in the lane's queue for what may be claimed now.
fn is_shared(
    busy: &HashMap<String, HashMap<TenantId, usize>>,
    lane: &Lane,
    open: &dyn Fn(&Lane) -> bool,
) -> bool {
    busy.get(lane.queue()).is_some_and(|tenants| {
        let others = tenants.keys().filter(|tenant| **tenant != lane.tenant);
        others.map(|tenant| Lane { name: lane.queue().to_owned(), tenant: *tenant }).any(|lane| open(&lane))
    })
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
mod tests {
    use super::*;

    fn lane(queue: &str, tenant: u128) -> Lane {
        Lane { name: queue.into(), tenant: TenantId(Uuid::from_u128(tenant)) }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn ask(lanes: &mut Lanes, free: usize, running: &dyn Fn(TenantId) -> usize) -> Vec<Ask> {
        lanes.ask(&Share {
            free,
            capacity: 10,
            fair_share: 0.5,
            of_tenant: running,
            of_lane: &|_, tenant| running(tenant),
            open: &|_| true,
        })
    }

    #[test]
    fn one_tenant_alone_takes_all_but_the_kept_slot() {
        let mut lanes = Lanes::default();
        lanes.wake(&lane("a", 1), at(5));
        let asks = ask(&mut lanes, 10, &|_| 0);
        assert_eq!(asks.iter().map(|ask| ask.most).collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn the_kept_slot_is_for_a_tenant_with_nothing_running() {
        let mut lanes = Lanes::default();
        lanes.wake(&lane("a", 1), at(5));
        let running = |tenant: TenantId| if tenant.0.as_u128() == 1 { 9 } else { 0 };
        assert!(ask(&mut lanes, 1, &running).is_empty());
        lanes.wake(&lane("a", 2), at(9));
        let asks = ask(&mut lanes, 1, &running);
        assert_eq!(asks.len(), 1);
        assert_eq!((asks[0].lane.clone(), asks[0].most), (lane("a", 2), 1));
    }

    #[test]
    fn nobody_passes_the_fair_share_while_another_waits() {
        let mut lanes = Lanes::default();
        lanes.wake(&lane("a", 1), at(5));
        lanes.wake(&lane("a", 2), at(5));
        let running = |tenant: TenantId| if tenant.0.as_u128() == 1 { 4 } else { 0 };
        let asks = ask(&mut lanes, 6, &running);
        let of = |tenant: u128| asks.iter().find(|ask| ask.lane == lane("a", tenant)).map(|ask| ask.most);
        assert_eq!((of(1), of(2)), (Some(1), Some(4)));
    }

    #[test]
    fn a_wake_during_the_claim_keeps_the_lane() {
        let mut lanes = Lanes::default();
        lanes.wake(&lane("a", 1), at(5));
        let asked = ask(&mut lanes, 10, &|_| 0).remove(0);
        lanes.wake(&lane("a", 1), at(3));
        lanes.answered(asked, 0, None);
        let again = ask(&mut lanes, 10, &|_| 0);
        assert_eq!(again[0].from.at, at(3));
    }

    /// A busy lane is woken all the time; were it to begin where it began each time, claims would walk
    /// over everything that they took before.
    #[test]
    fn a_wake_above_the_claim_does_not_hold_the_position_back() {
        let mut lanes = Lanes::default();
        lanes.wake(&lane("a", 1), at(5));
        let asked = ask(&mut lanes, 10, &|_| 0).remove(0);
        let most = asked.most;
        lanes.wake(&lane("a", 1), at(20));
        lanes.answered(asked, most, Some(Position { at: at(9), id: Uuid::nil() }));
        assert_eq!(ask(&mut lanes, 10, &|_| 0)[0].from.at, at(9));
    }

    #[test]
    fn who_may_not_be_claimed_now_shares_with_nobody() {
        let mut lanes = Lanes::default();
        lanes.wake(&lane("a", 1), at(5));
        lanes.wake(&lane("a/kind@2", 1), at(5));
        lanes.wake(&lane("a", 2), at(5));
        let paused = lane("a", 2).tenant;
        let asks = lanes.ask(&Share {
            free: 10,
            capacity: 10,
            fair_share: 0.5,
            of_tenant: &|_| 0,
            of_lane: &|_, _| 0,
            open: &|lane| lane.tenant != paused,
        });
        assert_eq!(asks.iter().map(|ask| ask.most).sum::<usize>(), 9, "all but the kept slot");
    }

    #[test]
    fn a_drained_lane_rests_until_it_is_woken() {
        let mut lanes = Lanes::default();
        lanes.wake(&lane("a", 1), at(5));
        let asked = ask(&mut lanes, 10, &|_| 0).remove(0);
        lanes.answered(asked, 3, Some(Position { at: at(7), id: Uuid::nil() }));
        assert!(ask(&mut lanes, 10, &|_| 0).is_empty());
        assert!(lanes.wake(&lane("a", 1), at(9)));
    }

    #[test]
    fn a_scan_lowers_positions_and_never_raises_them() {
        let mut lanes = Lanes::default();
        assert!(lanes.find(&lane("a", 1), at(5)));
        assert!(!lanes.find(&lane("a", 1), at(7)));
        assert!(lanes.find(&lane("a", 1), at(3)));
        assert_eq!(ask(&mut lanes, 10, &|_| 0)[0].from.at, at(3));
    }

    #[test]
    fn lanes_take_turns() {
        let mut lanes = Lanes::default();
        for tenant in 0..40 {
            lanes.wake(&lane("a", tenant), at(1));
        }
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10 {
            for asked in ask(&mut lanes, 6, &|_| 0) {
                seen.insert(asked.lane.clone());
                let most = asked.most;
                lanes.answered(asked, most, Some(Position { at: at(1), id: Uuid::nil() }));
            }
        }
        assert_eq!(seen.len(), 40);
    }

    /// How often each of so many tenants with a backlog starts something under a limit for all of them,
    /// which those meet that are asked first.
    fn starts_under_a_limit(tenants: usize, capacity: usize, limit: usize) -> HashMap<TenantId, usize> {
        let mut lanes = Lanes::default();
        for tenant in 0..tenants {
            lanes.wake(&lane("a", tenant as u128), at(1));
        }
        let mut running: VecDeque<TenantId> = VecDeque::new();
        let mut starts = HashMap::new();
        for _ in 0..tenants * limit * 3 {
            loop {
                let of = |tenant| running.iter().filter(|running| **running == tenant).count();
                let asks = lanes.ask(&Share {
                    free: capacity - running.len(),
                    capacity,
                    fair_share: 0.5,
                    of_tenant: &of,
                    of_lane: &|_, tenant| of(tenant),
                    open: &|_| true,
                });
                let mut left = limit - running.len();
                let (mut asked, mut passed) = (Vec::new(), Vec::new());
                for ask in asks {
                    let most = ask.most.min(left);
                    left -= most;
                    if most > 0 { asked.push(ask.limited(most)) } else { passed.push(ask) }
                }
                lanes.passed(passed);
                if asked.is_empty() {
                    break;
                }
                for ask in asked {
                    let most = ask.most;
                    running.extend(std::iter::repeat_n(ask.lane.tenant, most));
                    *starts.entry(ask.lane.tenant).or_default() += most;
                    lanes.answered(ask, most, Some(Position { at: at(1), id: Uuid::nil() }));
                }
            }
            running.pop_front();
        }
        starts
    }

    #[test]
    fn nobody_starves_under_a_limit() {
        for (capacity, limit) in
            [2, 3, 4, 10, 32].into_iter().flat_map(|capacity| [(capacity, 1), (capacity, 2)])
        {
            for tenants in 2..40 {
                let starts = starts_under_a_limit(tenants, capacity, limit);
                assert_eq!(
                    starts.len(),
                    tenants,
                    "concurrency {capacity}, at most {limit} running: {starts:?}"
                );
            }
        }
    }
}
