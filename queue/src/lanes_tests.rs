use std::cell::Cell;

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
        still: &|_| false,
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
        still: &|_| false,
        open: &|lane| lane.tenant != paused,
    });
    assert_eq!(asks.iter().map(|ask| ask.most).sum::<usize>(), 9, "all but the kept slot");
}

/// What one ask gets, and how often it looks whether a lane stands still or is open.
fn looks(
    lanes: &mut Lanes,
    still: &dyn Fn(&Lane) -> bool,
    open: &dyn Fn(&Lane) -> bool,
) -> (Vec<Ask>, usize) {
    let looks = Cell::new(0);
    let look = |answer: bool| {
        looks.set(looks.get() + 1);
        answer
    };
    let asks = lanes.ask(&Share {
        free: 40,
        capacity: 40,
        fair_share: 0.5,
        of_tenant: &|_| 0,
        of_lane: &|_, _| 0,
        still: &|lane| look(still(lane)),
        open: &|lane| look(open(lane)),
    });
    (asks, looks.get())
}

const MANY: u128 = 2_000;

/// Under limits that are met, or in the ordinary queue while a limited one is asked. With the lanes of
/// one queue and those of another, and with somebody beside them who may start.
#[test]
fn what_an_ask_costs_grows_with_the_lanes_that_are_closed_and_not_with_their_square() {
    for others in [0, 1] {
        let mut lanes = Lanes::default();
        for tenant in 0..MANY {
            lanes.wake(&lane("closed", tenant), at(1));
            lanes.wake(&lane("half", tenant), at(1));
        }
        for tenant in MANY..MANY + others {
            lanes.wake(&lane("half", tenant), at(2));
        }
        let open = |lane: &Lane| lane.queue() == "half" && lane.tenant.0.as_u128() >= MANY;
        for _ in 0..2 {
            let (asks, looks) = looks(&mut lanes, &|_| false, &open);
            assert_eq!(asks.len(), others as usize);
            assert!(looks < 7 * MANY as usize, "{looks} for {} lanes", 2 * MANY);
            lanes.unanswered(asks);
        }
    }
}

#[test]
fn who_stands_still_is_looked_at_once_until_the_controls_change() {
    let mut lanes = Lanes::default();
    for tenant in 0..MANY {
        lanes.wake(&lane("a", tenant), at(5));
    }
    let (asks, looked) = looks(&mut lanes, &|_| true, &|_| true);
    assert_eq!((asks, looked), (Vec::new(), MANY as usize));
    // Neither by what wakes it nor by a scan.
    lanes.wake(&lane("a", 0), at(3));
    for tenant in 0..MANY {
        assert!(!lanes.find(&lane("a", tenant), at(if tenant == 0 { 3 } else { 5 })));
    }
    lanes.wake(&lane("a", MANY), at(6));
    let (asks, looked) = looks(&mut lanes, &|lane| lane.tenant.0.as_u128() < MANY, &|_| true);
    assert_eq!(asks.iter().map(|ask| ask.most).collect::<Vec<_>>(), [39], "it shares with nobody");
    assert!(looked < 5, "{looked}");

    lanes.controls_changed();
    let (asks, _) = looks(&mut lanes, &|_| false, &|_| true);
    assert_eq!(asks.len(), LANES_PER_CLAIM);
    assert_eq!((asks[0].lane.clone(), asks[0].from.at), (lane("a", 0), at(3)));
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
    assert!(!lanes.find(&lane("a", 1), at(3)), "nothing has happened");
    let asked = ask(&mut lanes, 10, &|_| 0).remove(0);
    assert_eq!(asked.from.at, at(3));
    let most = asked.most;
    lanes.answered(asked, most, Some(Position { at: at(3), id: Uuid::max() }));
    assert!(lanes.find(&lane("a", 1), at(3)), "its id may be lower");
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
/// which those meet that are asked first. Between any two of them is one that may start nothing.
fn starts_under_a_limit(tenants: usize, capacity: usize, limit: usize) -> HashMap<TenantId, usize> {
    let may_start = |tenant: TenantId| tenant.0.as_u128().is_multiple_of(2);
    let mut lanes = Lanes::default();
    for tenant in 0..tenants * 2 {
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
                still: &|_| false,
                open: &|lane| may_start(lane.tenant),
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
    for (capacity, limit) in [2, 3, 4, 10, 32].into_iter().flat_map(|capacity| [(capacity, 1), (capacity, 2)])
    {
        for tenants in 2..40 {
            let starts = starts_under_a_limit(tenants, capacity, limit);
            let who = starts.keys().filter(|tenant| tenant.0.as_u128().is_multiple_of(2)).count();
            assert_eq!(
                (who, starts.len()),
                (tenants, tenants),
                "concurrency {capacity}, at most {limit} running: {starts:?}"
            );
        }
    }
}
