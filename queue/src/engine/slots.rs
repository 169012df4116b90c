//! The slots of this process: what runs in them, and what was claimed and waits for one.
//!
//! While jobs are short, claims run ahead of the slots, so that the next job starts when one ends
//! and not after a round trip to the database. How far is a matter of time: as many jobs as are
//! done in [`AHEAD`]. Long jobs are therefore never claimed ahead; should jobs become long while
//! some wait, those go back (`Engine::tend_slots`).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
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

/// How long a handler that blocks its thread can stop those beside it, and how long a job that was
/// claimed ahead waits for its slot before it goes back: at most twice this.
const TEND: Duration = Duration::from_millis(100);

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

    /// How many more may be claimed of queues that must not run ahead: with those held, no more than
    /// there are slots.
    pub(super) fn free_for(&self, such: impl Fn(&str) -> bool) -> usize {
        let queues = self.tenants.values().flat_map(|tenant| &tenant.queues);
        let held: usize =
            queues.filter(|(queue, _)| such(queue)).map(|(_, count)| count.running + count.waiting).sum();
        self.concurrency.saturating_sub(held).min(self.free())
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
        // At the head they stay in their order.
        let jobs: Box<dyn Iterator<Item = Claimed>> = match line {
            Line::Head => Box::new(jobs.into_iter().rev()),
            Line::End => Box::new(jobs.into_iter()),
        };
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
        // Not the first alone: what is put before the others is younger.
        if self.waiting.iter().all(|waiting| waiting.since.elapsed() < longest) {
            return Vec::new();
        }
        // Nothing ahead, until jobs prove short again.
        let none_ahead = 2.0 * AHEAD.as_secs_f64() * self.concurrency as f64;
        self.mean = Some(self.mean.unwrap_or_default().max(none_ahead).max(1.0));
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
    /// What a slot that is held for too long does to others.
    ///
    /// A handler that blocks its thread can stop all others: when that thread was the one that waits
    /// for the runtime's I/O, no other takes its place until something is spawned. So something is,
    /// as long as handlers run. And what was claimed ahead does not wait for a long job to end.
    pub(super) async fn tend_slots(self: Arc<Self>) {
        let mut interval = tokio::time::interval(TEND);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = self.over.cancelled() => return,
            }
            if self.slots().running() > 0 {
                self.handlers.spawn(async {});
            }
            let stuck = self.slots().stuck(TEND);
            self.release(stuck);
        }
    }

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
#[path = "slots_tests.rs"]
mod tests;
