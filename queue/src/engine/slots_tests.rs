use super::*;

const A: TenantId = TenantId(uuid::Uuid::from_u128(1));
const B: TenantId = TenantId(uuid::Uuid::from_u128(2));

fn jobs(tenant: TenantId, number: usize) -> Vec<Claimed> {
    std::iter::repeat_with(|| Claimed::of(tenant)).take(number).collect()
}

fn after_jobs_of(took: Duration, concurrency: usize) -> Slots {
    let mut slots = Slots::new(concurrency, 0.5);
    slots.add(jobs(A, 1), Line::End).expect("open");
    let job = slots.next().expect("a slot");
    slots.ended(&job.queue, A, took);
    slots
}

#[test]
fn nothing_is_claimed_ahead_before_jobs_prove_short_nor_of_long_ones() {
    assert_eq!(Slots::new(10, 0.5).capacity(), 10);
    assert_eq!(after_jobs_of(Duration::from_secs(10), 10).capacity(), 10);
}

#[test]
fn as_many_are_claimed_ahead_as_are_done_in_the_time_but_never_too_many() {
    assert_eq!(after_jobs_of(Duration::from_millis(5), 10).capacity(), 10 + 40);
    assert_eq!(after_jobs_of(Duration::from_micros(5), 10).capacity(), 10 + MOST_AHEAD);
}

#[test]
fn no_more_start_than_there_are_slots() {
    let mut slots = after_jobs_of(Duration::from_millis(1), 3);
    slots.add(jobs(A, 5).into_iter().chain(jobs(B, 5)).collect(), Line::End).expect("open");
    assert_eq!(std::iter::from_fn(|| slots.next()).count(), 3);
}

#[test]
fn the_last_slot_is_kept_for_a_tenant_of_whom_nothing_runs() {
    let mut slots = after_jobs_of(Duration::from_millis(1), 3);
    slots.add(jobs(A, 5), Line::End).expect("open");
    assert_eq!(std::iter::from_fn(|| slots.next()).count(), 2);
    slots.add(jobs(B, 2), Line::End).expect("open");
    assert_eq!(slots.next().expect("the kept slot").tenant, B);
    assert!(slots.next().is_none());
    // Something of B runs now; when it is over B is new again.
    slots.ended("q", B, Duration::ZERO);
    assert_eq!(slots.next().expect("the kept slot").tenant, B);
}

#[test]
fn nobody_passes_their_share_while_another_tenant_waits() {
    let mut slots = after_jobs_of(Duration::from_millis(1), 10);
    slots.add(jobs(A, 50), Line::End).expect("open");
    slots.add(jobs(B, 50), Line::End).expect("open");
    let started: Vec<_> = std::iter::from_fn(|| slots.next()).map(|job| job.tenant).collect();
    let of = |tenant| started.iter().filter(|started| **started == tenant).count();
    assert_eq!((of(A), of(B)), (5, 4), "and the kept slot");
}

#[test]
fn one_tenant_alone_may_run_all_but_the_kept_slot() {
    let mut slots = after_jobs_of(Duration::from_millis(1), 10);
    slots.add(jobs(A, 50), Line::End).expect("open");
    assert_eq!(std::iter::from_fn(|| slots.next()).count(), 9);
}

#[test]
fn jobs_of_limited_queues_go_first() {
    let mut slots = after_jobs_of(Duration::from_millis(1), 10);
    slots.add(jobs(A, 5), Line::End).expect("open");
    let limited = jobs(B, 3);
    let order: Vec<_> = limited.iter().map(|job| job.id).collect();
    slots.add(limited, Line::Head).expect("open");
    let started: Vec<_> = std::iter::from_fn(|| slots.next()).take(3).map(|job| job.id).collect();
    assert_eq!(started, order, "in their own order");
}

#[test]
fn limited_queues_hold_no_more_than_there_are_slots() {
    let mut slots = after_jobs_of(Duration::from_millis(1), 4);
    slots.add(jobs(A, 3), Line::Head).expect("open");
    assert!(slots.free() > 4);
    assert_eq!(slots.free_for(|queue| queue == "q"), 1);
    assert_eq!(slots.free_for(|queue| queue == "another"), 4);
}

#[test]
fn what_is_put_before_the_others_does_not_hide_that_they_are_stuck() {
    let mut slots = after_jobs_of(Duration::from_millis(1), 100);
    slots.add(jobs(A, 2), Line::End).expect("open");
    std::thread::sleep(Duration::from_millis(20));
    slots.add(jobs(B, 1), Line::Head).expect("open");
    assert_eq!(slots.stuck(Duration::from_millis(10)).len(), 3);
    assert_eq!(slots.capacity(), 100, "nothing ahead");
}

#[test]
fn what_is_stuck_goes_back_and_nothing_is_claimed_ahead_for_a_while() {
    let mut slots = after_jobs_of(Duration::from_millis(1), 2);
    slots.add(jobs(A, 5), Line::End).expect("open");
    slots.next().expect("a slot");
    assert!(slots.stuck(Duration::from_secs(60)).is_empty());
    assert_eq!(slots.stuck(Duration::ZERO).len(), 4);
    assert_eq!((slots.capacity(), slots.of_tenant(A), slots.of_lane("q", A)), (2, 1, 1));
}

#[test]
fn nothing_starts_after_the_end() {
    let mut slots = Slots::new(2, 0.5);
    slots.add(jobs(A, 2), Line::End).expect("open");
    assert_eq!(slots.close().len(), 2);
    assert_eq!(slots.add(jobs(A, 1), Line::End).expect_err("closed").len(), 1);
    assert!(matches!(slots.poll_next(&mut Context::from_waker(Waker::noop())), Poll::Ready(None)));
    assert_eq!(slots.of_tenant(A), 0);
}
