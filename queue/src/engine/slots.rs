//! The slots of this process: what runs in them, and what was claimed and waits for one.
//!
//! While jobs are short, claims run ahead of the slots, so that the next job starts when one ends
//! and not after a round trip to the database. How far is a matter of time: as many jobs as are
//! done in [`AHEAD`]. Long jobs are therefore never claimed ahead; should jobs become long while
//! some wait, those go back (`Engine::tend_slots`).

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use streamspace_common::TenantId;

use super::Engine;
use crate::claim::Claimed;

/// What waits here is started in about this time.
const AHEAD: Duration = Duration::from_millis(20);
/// Most that are claimed ahead.
const MOST_AHEAD: usize = 200;

pub(super) struct Slots {
    concurrency: usize,
    /// Most that a tenant may run of a queue while another one waits here for the same.
    fair: usize,
    running: usize,
    waiting: VecDeque<Waiting>,
    tenants: HashMap<TenantId, Tenant>,
    /// Waiting jobs of tenants of whom nothing runs here.
    newcomers: usize,
    /// How long jobs took of late; unknown at first.
    mean: Option<f64>,
    closed: bool,
    waker: Option<Waker>,
}

/// Where claimed jobs go.
#[derive(Clone, Copy)]
pub(super) enum Line {
    /// Of limited queues: as long as they wait here they keep others from starting elsewhere.
    Head,
    End,
}

struct Waiting {
    since: Instant,
    job: Claimed,
}

#[derive(Default)]
struct Tenant {
    running: usize,
    waiting: usize,
    queues: HashMap<String, Count>,
}

#[derive(Default)]
struct Count {
    running: usize,
    waiting: usize,
}

impl Slots {
    pub(super) fn new(concurrency: usize, fair_share: f64) -> Self {
        Self {
            concurrency,
            fair: ((concurrency as f64 * fair_share).ceil() as usize).max(1),
            running: 0,
            waiting: VecDeque::new(),
            tenants: HashMap::new(),
            newcomers: 0,
            mean: None,
            closed: false,
            waker: None,
        }
    }

    /// How many may be claimed at once, running and waiting.
    pub(super) fn capacity(&self) -> usize {
        let ahead =
            self.mean.map_or(0.0, |mean| AHEAD.as_secs_f64() * self.concurrency as f64 / mean.max(1e-6));
        self.concurrency + (ahead as usize).min(MOST_AHEAD)
    }

    /// How many more may be claimed.
    pub(super) fn free(&self) -> usize {
        self.capacity().saturating_sub(self.running + self.waiting.len())
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn of_tenant(&self, tenant: TenantId) -> usize {
        self.tenants.get(&tenant).map_or(0, |tenant| tenant.running + tenant.waiting)
    }

    pub(super) fn of_lane(&self, queue: &str, tenant: TenantId) -> usize {
        let count = self.tenants.get(&tenant).and_then(|tenant| tenant.queues.get(queue));
        count.map_or(0, |count| count.running + count.waiting)
    }

    /// Puts claimed jobs in line, or at its head. Gives them back when nothing is to start here any
    /// more.
    pub(super) fn add(&mut self, jobs: Vec<Claimed>, line: Line) -> Result<(), Vec<Claimed>> {
        if self.closed {
            return Err(jobs);
        }
        let since = Instant::now();
        for job in jobs {
            let tenant = self.tenants.entry(job.tenant).or_default();
            tenant.waiting += 1;
            self.newcomers += usize::from(tenant.running == 0);
            match tenant.queues.get_mut(&job.queue) {
                Some(count) => count.waiting += 1,
                None => {
                    tenant.queues.insert(job.queue.clone(), Count { running: 0, waiting: 1 });
                }
            }
            match line {
                Line::Head => self.waiting.push_front(Waiting { since, job }),
                Line::End => self.waiting.push_back(Waiting { since, job }),
            }
        }
        self.wake();
        Ok(())
    }

    /// The next job to start, once there is a slot for it. `None` when nothing is to start any more.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Claimed>> {
        if self.closed {
            return Poll::Ready(None);
        }
        if let Some(job) = self.next() {
            return Poll::Ready(Some(job));
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The rules of claiming hold for starting too: the last slot is kept for tenants of whom nothing
    /// runs here, and nobody passes their fair share of a queue while another one waits for it.
    fn next(&mut self) -> Option<Claimed> {
        let free = self.concurrency.saturating_sub(self.running);
        let at = match free {
            0 => return None,
            1 if self.concurrency > 1 && self.newcomers == 0 => return None,
            1 if self.concurrency > 1 => {
                self.waiting.iter().position(|waiting| self.is_new(waiting.job.tenant))?
            }
            _ => self.fair_turn(),
        };
        let job = self.waiting.remove(at)?.job;
        self.running += 1;
        if let Some(tenant) = self.tenants.get_mut(&job.tenant) {
            if tenant.running == 0 {
                // Its others are no newcomer's any more.
                self.newcomers -= tenant.waiting;
            }
            tenant.waiting -= 1;
            tenant.running += 1;
            if let Some(count) = tenant.queues.get_mut(&job.queue) {
                count.waiting -= 1;
                count.running += 1;
            }
        }
        Some(job)
    }

    /// The place of the first, or of the first of another tenant when its own has its share.
    fn fair_turn(&self) -> usize {
        let Some(first) = self.waiting.front() else { return 0 };
        let of =
            |job: &Claimed| self.tenants.get(&job.tenant).and_then(|tenant| tenant.queues.get(&job.queue));
        let has_share = |job: &Claimed| of(job).is_some_and(|count| count.running >= self.fair);
        let alone = of(&first.job).is_some_and(|count| count.waiting == self.waiting.len());
        if alone || !has_share(&first.job) {
            return 0;
        }
        let other = |waiting: &Waiting| waiting.job.queue == first.job.queue && !has_share(&waiting.job);
        self.waiting.iter().position(other).unwrap_or(0)
    }

    fn is_new(&self, tenant: TenantId) -> bool {
        self.tenants.get(&tenant).is_some_and(|tenant| tenant.running == 0)
    }

    /// A job left its slot.
    pub(super) fn ended(&mut self, queue: &str, tenant: TenantId, took: Duration) {
        self.running -= 1;
        let took = took.as_secs_f64();
        self.mean = Some(self.mean.map_or(took, |mean| mean + (took - mean) / 16.0));
        if let Some(of) = self.tenants.get_mut(&tenant) {
            of.running -= 1;
            if of.running == 0 {
                self.newcomers += of.waiting;
            }
            if let Some(count) = of.queues.get_mut(queue) {
                count.running -= 1;
            }
        }
        self.tidy(queue, tenant);
        self.wake();
    }

    fn tidy(&mut self, queue: &str, tenant: TenantId) {
        let Some(of) = self.tenants.get_mut(&tenant) else { return };
        if of.queues.get(queue).is_some_and(|count| count.running + count.waiting == 0) {
            of.queues.remove(queue);
        }
        if of.queues.is_empty() {
            self.tenants.remove(&tenant);
        }
    }

    /// Takes back what has waited so long: jobs are not as short as they were.
    pub(super) fn stuck(&mut self, longest: Duration) -> Vec<Claimed> {
        if self.waiting.front().is_none_or(|first| first.since.elapsed() < longest) {
            return Vec::new();
        }
        // Until jobs prove short again.
        self.mean = Some(self.mean.unwrap_or_default().max(1.0));
        self.take_waiting()
    }

    /// Nothing starts from now on; what waited is the caller's.
    pub(super) fn close(&mut self) -> Vec<Claimed> {
        self.closed = true;
        self.wake();
        self.take_waiting()
    }

    fn take_waiting(&mut self) -> Vec<Claimed> {
        let jobs: Vec<Claimed> = self.waiting.drain(..).map(|waiting| waiting.job).collect();
        self.newcomers = 0;
        for job in &jobs {
            if let Some(tenant) = self.tenants.get_mut(&job.tenant) {
                tenant.waiting -= 1;
                if let Some(count) = tenant.queues.get_mut(&job.queue) {
                    count.waiting -= 1;
                }
            }
            self.tidy(&job.queue, job.tenant);
        }
        jobs
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Engine {
    pub(super) fn next_to_start(&self, cx: &mut Context<'_>) -> Poll<Option<Claimed>> {
        let mut slots = self.slots();
        let next = slots.poll_next(cx);
        if matches!(next, Poll::Ready(Some(_))) && slots.waiting() == 0 {
            // Whoever waits for room to claim more at once does so while there is something to start.
            self.fetch.notify_one();
        }
        next
    }

    /// A handler ended: its slot is free, though its end is not yet written.
    pub(super) fn ended(&self, job: &Claimed, took: Duration) {
        let free = {
            let mut slots = self.slots();
            slots.ended(&job.queue, job.tenant, took);
            slots.free()
        };
        // A fetcher that gathers is not woken for each.
        if free >= self.enough.load(Ordering::Acquire) {
            self.fetch.notify_one();
        }
    }

    pub(super) fn start_no_more(&self) {
        let waiting = self.slots().close();
        self.release(waiting);
    }
}

#[cfg(test)]
mod tests {
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
        slots.add(jobs(B, 1), Line::Head).expect("open");
        assert_eq!(slots.next().expect("a slot").tenant, B);
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
}
