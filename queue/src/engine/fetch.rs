//! Claims as long as there is room and work; otherwise waits to be told.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sqlx::{PgConnection, pool::PoolConnection};
use streamspace_common::{BootId, JobId};
use tokio::time::Instant;
use tracing::warn;

use super::{Engine, Live, Stop, limited::Limits, slots::Line};
use crate::{
    claim::{self, Claimed},
    db::{ANSWER, discard, is_held, within},
    keys::{self, Taken},
    lanes::{Ask, Position, Share},
    notice::{Lane, Notices},
};

/// Most rows of one claim.
const MOST: usize = 200;
/// A claim waits this long for more room while slots are being freed faster than this, and that
/// long as long as there are jobs to start meanwhile.
const GATHER: Duration = Duration::from_millis(1);
const GATHER_MEANWHILE: Duration = Duration::from_millis(10);

impl Engine {
    /// Ends once no more is to be claimed.
    pub(super) async fn fetch(self: Arc<Self>) {
        let mut claims = Claims::default();
        let mut backoff = Duration::from_millis(50);
        let mut had_backlog = false;
        // A worker that has just started must not run past a pause that it has not read yet.
        tokio::select! {
            () = self.informed.cancelled() => {}
            () = self.draining.cancelled() => {}
        }
        while !self.draining.is_cancelled() {
            if had_backlog {
                self.gather().await;
            }
            self.count_claim();
            let fetched = self.fetch_once(&mut claims).await;
            self.count_claim();
            match fetched {
                Ok(Fetched::Some { full }) => {
                    had_backlog = full.unwrap_or(had_backlog);
                    backoff = Duration::from_millis(50);
                }
                Ok(Fetched::Nothing { again }) => {
                    had_backlog = false;
                    backoff = Duration::from_millis(50);
                    tokio::select! {
                        () = self.fetch.notified() => {}
                        () = self.draining.cancelled() => {}
                        () = tokio::time::sleep_until(again.unwrap_or_else(far)), if again.is_some() => {}
                    }
                }
                Err(error) => {
                    warn!(%error, "claiming failed; trying again in {backoff:?}");
                    self.claim_may_be_lost();
                    discard(&mut claims.connection);
                    tokio::select! {
                        () = tokio::time::sleep(backoff) => {}
                        () = self.draining.cancelled() => {}
                    }
                    backoff = (backoff * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    /// Under load slots are freed one by one, and a claim for each would cost more than the jobs:
    /// waits until there is room for half of what can be held, but not for long.
    async fn gather(&self) {
        let began = Instant::now();
        loop {
            let (free, enough, patience) = {
                let slots = self.slots();
                let patience = if slots.waiting() == 0 { GATHER } else { GATHER_MEANWHILE };
                (slots.free(), slots.capacity().min(MOST).div_ceil(2), patience)
            };
            self.enough.store(enough, Ordering::Release);
            if free >= enough
                || tokio::time::timeout_at(began + patience, self.fetch.notified()).await.is_err()
            {
                break;
            }
        }
        self.enough.store(0, Ordering::Release);
    }

    fn room(&self) -> Room {
        // A database that falls behind must not let ends pile up that are not yet written.
        if self.unacknowledged.load(Ordering::Acquire) > (self.options.concurrency * 2).max(256) {
            return Room { free: 0, capacity: self.options.concurrency };
        }
        let slots = self.slots();
        Room { free: slots.free(), capacity: slots.capacity() }
    }

    /// Queues with limits and those without take turns, or else a backlog of the one kind would keep
    /// the other from ever being asked.
    async fn fetch_once(&self, claims: &mut Claims) -> sqlx::Result<Fetched> {
        let room = self.room();
        if room.free == 0 {
            return Ok(Fetched::Nothing { again: None });
        }
        let controls = self.controls();
        let boot = self.boot();
        // Whether or not they are asked now: a time that has passed is nothing to wait for.
        claims.limits.forget_before(Instant::now());
        for limited in [claims.limited_next, !claims.limited_next] {
            if limited {
                // Also if it fails: others do not wait until it succeeds.
                claims.limited_next = false;
                claims.limits.are(&controls);
                if !controls.limits_any() {
                    continue;
                }
                // Not ahead: while they wait here they keep others from starting elsewhere.
                let free = self.slots().free_for(|queue| controls.limits_queue(queue)).min(room.free);
                if free > 0
                    && let Some(rows) = self.claim_limited(claims, boot, free, &controls).await?
                {
                    self.start(claims.open(self).await?, boot, rows, Line::Head).await?;
                    return Ok(Fetched::Some { full: None });
                }
                continue;
            }
            let open = |lane: &Lane| !controls.is_limited(lane);
            let asks = self.ask(room.free, room.capacity, &open);
            if !asks.is_empty() {
                claims.limited_next = true;
                let wanted: usize = asks.iter().map(|ask| ask.most).sum();
                let rows = self.claim(claims, boot, asks).await?;
                let full = Some(rows.len() == wanted);
                self.start(claims.open(self).await?, boot, rows, Line::End).await?;
                return Ok(Fetched::Some { full });
            }
        }
        // A paused lane is nothing to wait for; a limited one opens by itself.
        Ok(Fetched::Nothing { again: claims.limits.next() })
    }

    pub(super) fn ask(&self, free: usize, capacity: usize, open: &dyn Fn(&Lane) -> bool) -> Vec<Ask> {
        let slots = self.slots();
        let mut lanes = self.lanes.lock().expect("no panic while it was held");
        // Read behind the lock: what changes from now on brings back whoever stands still by these.
        let controls = self.controls();
        lanes.ask(&Share {
            free: free.min(MOST + 1),
            capacity,
            fair_share: self.options.fair_share,
            of_tenant: &|tenant| slots.of_tenant(tenant),
            of_lane: &|queue, tenant| slots.of_lane(queue, tenant),
            still: &|lane| controls.is_paused(lane),
            open,
        })
    }

    async fn claim(&self, claims: &mut Claims, boot: BootId, asks: Vec<Ask>) -> sqlx::Result<Vec<Claimed>> {
        let answer = match claims.open(self).await {
            Ok(conn) => within(ANSWER, claim::claim(conn, boot, &asks)).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(rows) => {
                self.learn(asks, &rows);
                Ok(rows)
            }
            Err(error) => {
                self.lanes.lock().expect("no panic while it was held").unanswered(asks);
                Err(error)
            }
        }
    }

    /// Moves the positions of the lanes that were asked.
    pub(super) fn learn(&self, asks: Vec<Ask>, rows: &[Claimed]) {
        let mut answers: HashMap<&Lane, (usize, Position)> = HashMap::with_capacity(asks.len());
        for row in rows {
            let position = Position { at: row.order_at, id: row.id.0 };
            let answer = answers.entry(&row.lane).or_insert((0, position));
            answer.0 += 1;
            answer.1 = answer.1.max(position);
        }
        let mut lanes = self.lanes.lock().expect("no panic while it was held");
        for ask in asks {
            let answer = answers.get(&ask.lane).copied();
            let (claimed, last) = answer.map_or((0, None), |(claimed, last)| (claimed, Some(last)));
            lanes.answered(ask, claimed, last);
        }
    }

    /// Puts claimed jobs in line, those with a concurrency key once they have its slot. When it is not
    /// known whether they have it they go back.
    async fn start(
        &self,
        conn: &mut PgConnection,
        boot: BootId,
        mut rows: Vec<Claimed>,
        line: Line,
    ) -> sqlx::Result<()> {
        let mut failed = None;
        if rows.iter().any(|row| row.keyed) {
            match within(ANSWER, self.take_slots(conn, boot, &rows)).await {
                Ok(granted) => rows.retain(|row| !row.keyed || granted.contains(&row.id)),
                Err(error) => {
                    let keyed = rows.extract_if(.., |row| row.keyed).collect();
                    self.release(keyed);
                    // Somebody froze while taking one of the slots: the others go on claiming.
                    failed = (!is_held(&error)).then_some(error);
                }
            }
        }
        let mut started = Notices::default();
        {
            let mut attempts = self.attempts.lock().expect("no panic while it was held");
            for row in &rows {
                attempts.insert(row.id, Arc::new(Live::new(row)));
                started.changed(row.id, row.row_version);
            }
            // This worker was taken for dead since it asked, and `lost` stops only what it finds here.
            if self.boot() != boot {
                for row in &rows {
                    attempts[&row.id].stop(Stop::Lost);
                }
            }
            for job in self.early.lock().expect("no panic while it was held").drain() {
                if let Some(live) = attempts.get(&job) {
                    self.deliver_cancel(live);
                }
            }
        }
        self.queue.tell(started);
        let added = self.slots().add(rows, line);
        if let Err(late) = added {
            self.release(late);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Takes the slots of keyed jobs; returns those that have theirs. What the others were allowed of a
    /// queue's limit is free again.
    async fn take_slots(
        &self,
        conn: &mut PgConnection,
        boot: BootId,
        rows: &[Claimed],
    ) -> sqlx::Result<Vec<JobId>> {
        let (jobs, fences): (Vec<_>, Vec<_>) =
            rows.iter().filter(|row| row.keyed).map(|row| (row.id, row.fence)).unzip();
        let Taken { granted, mut notices } = keys::take_slots(conn, boot, &jobs, &fences).await?;
        let controls = self.controls();
        let back = rows.iter().filter(|row| row.keyed && !granted.contains(&row.id));
        notices.freed.extend(back.map(|row| row.queue.clone()).filter(|queue| controls.limits_queue(queue)));
        self.queue.tell(notices);
        Ok(granted)
    }
}

/// What may be claimed.
struct Room {
    /// Ahead included.
    free: usize,
    capacity: usize,
}

/// What the fetcher remembers from one claim to the next.
#[derive(Default)]
pub(super) struct Claims {
    connection: Option<PoolConnection<sqlx::Postgres>>,
    limited_next: bool,
    /// When limited queues may be asked again.
    pub(super) limits: Limits,
    /// Limited queues take turns too: the one that came last.
    pub(super) limited_last: String,
}

impl Claims {
    pub(super) async fn open(&mut self, engine: &Engine) -> sqlx::Result<&mut PgConnection> {
        Ok(match &mut self.connection {
            Some(open) => open,
            closed => closed.insert(engine.queue.db().direct().acquire().await?),
        })
    }
}

enum Fetched {
    Some {
        /// As many as were asked for: there is probably more. Unknown where limits say how many.
        full: Option<bool>,
    },
    Nothing {
        again: Option<Instant>,
    },
}

/// Stands for a timer that is not used.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use streamspace_common::{PLATFORM, TenantId};

    use super::*;
    use crate::engine::{
        WorkerOptions,
        controls::{Control, Controls},
    };

    fn limited(queue: &str) -> Control {
        Control {
            queue: queue.into(),
            tenant_id: PLATFORM,
            paused: false,
            max_running: None,
            rate_count: Some(50),
            rate_period_ms: Some(1000),
        }
    }

    /// Jobs were short, so there is room to claim ahead; those of limited queues have all slots.
    #[tokio::test]
    async fn nobody_waits_for_a_limit_that_opened_while_its_jobs_have_all_slots() {
        let engine = Engine::bare(WorkerOptions { concurrency: 2, ..WorkerOptions::default() });
        engine.set_controls(Controls::new(vec![limited("q")], false));
        let tenant = TenantId::new();
        {
            let mut slots = engine.slots();
            slots.add(vec![Claimed::of(tenant)], Line::Head).expect("open");
            assert!(slots.poll_next(&mut Context::from_waker(Waker::noop())).is_ready());
            slots.ended("q", tenant, Duration::from_millis(1));
            slots.add(vec![Claimed::of(tenant), Claimed::of(tenant)], Line::Head).expect("open");
            assert!(slots.free() > 0 && slots.free_for(|queue| queue == "q") == 0);
        }
        let mut claims = Claims::default();
        claims.limits.are(&engine.controls());
        claims.limits.wait("q", PLATFORM, Instant::now());
        let fetched = engine.fetch_once(&mut claims).await.expect("no database is asked");
        assert!(matches!(fetched, Fetched::Nothing { again: None }));
    }

    /// A limit that was lifted leaves nothing to wait for either.
    #[tokio::test]
    async fn nobody_waits_for_a_limit_that_is_no_more() {
        let engine = Engine::bare(WorkerOptions::default());
        let mut claims = Claims::default();
        engine.set_controls(Controls::new(vec![limited("q")], false));
        claims.limits.are(&engine.controls());
        claims.limits.wait("q", PLATFORM, Instant::now() + Duration::from_secs(60));
        let fetched = engine.fetch_once(&mut claims).await.expect("no database is asked");
        assert!(matches!(fetched, Fetched::Nothing { again: Some(_) }));
        engine.set_controls(Controls::default());
        let fetched = engine.fetch_once(&mut claims).await.expect("no database is asked");
        assert!(matches!(fetched, Fetched::Nothing { again: None }));
    }
}
