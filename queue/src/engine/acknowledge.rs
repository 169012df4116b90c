//! Writes how attempts ended, in batches of whatever came while the last one was written. Progress
//! goes the same way, so no two statements of a process lock the same rows in different orders.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sqlx::PgConnection;
use streamspace_common::{JobId, TenantId};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::Engine;
use crate::{
    claim::Claimed,
    db::{ANSWER, discard, within},
    events::{self, Park},
    notice::Notices,
    settle::{self, End, Finish, Verdict},
};

/// Most of one statement.
const BATCH: usize = 500;
/// After a round of so many, the next waits for company.
const BUSY: usize = 8;
const GATHER: Duration = Duration::from_millis(1);
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

pub(super) enum Ack {
    Finish(Finish),
    End(End),
    Park {
        job: JobId,
        fence: i64,
        tenant: TenantId,
        event: String,
        timeout_ms: i64,
        snapshot: String,
        keyed: bool,
    },
    /// Cancels were delivered: record when.
    Delivered,
}

/// What one round has to write. It is kept until it is written: an acknowledgement is never dropped
/// on an error of the database.
#[derive(Default)]
struct Round {
    finishes: Vec<Finish>,
    ends: Vec<End>,
    parks: Vec<Ack>,
    settled: Vec<(JobId, i64)>,
    progress: Vec<(JobId, i64, serde_json::Value)>,
    /// The database refused a value of one of them: each is written alone.
    one_by_one: bool,
    stale: usize,
    notices: Notices,
}

impl Engine {
    pub(super) fn settle(&self, ack: Ack) {
        self.unacknowledged.fetch_add(1, Ordering::AcqRel);
        // The receiver outlives every handler: it ends after the last loop.
        let _ = self.acks.send(ack);
    }

    /// Jobs that were claimed and not started go back as they came.
    pub(super) fn release(&self, jobs: Vec<Claimed>) {
        for job in jobs {
            self.settle(Ack::End(End::release(job.id, job.fence)));
        }
    }

    pub(super) async fn acknowledge(self: Arc<Self>, mut acks: mpsc::UnboundedReceiver<Ack>) {
        let mut buffer = Vec::with_capacity(BATCH);
        let mut connection = None;
        let mut progress = tokio::time::interval(PROGRESS_EVERY);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut busy = false;
        loop {
            let mut round = Round::default();
            let mut write_progress = false;
            tokio::select! {
                _ = acks.recv_many(&mut buffer, BATCH) => {}
                _ = progress.tick() => write_progress = true,
                () = self.over.cancelled() => {
                    if acks.is_empty() {
                        return;
                    }
                }
            }
            if busy {
                self.gather_acks(&mut acks, &mut buffer).await;
            }
            busy = buffer.len() >= BUSY;
            let mut taken = 0;
            for ack in buffer.drain(..) {
                match ack {
                    Ack::Delivered => continue,
                    Ack::Finish(finish) => round.finishes.push(finish),
                    Ack::End(end) => round.ends.push(end),
                    park @ Ack::Park { .. } => round.parks.push(park),
                }
                taken += 1;
            }
            // In the order of ids, as bulk operations lock them too.
            round.finishes.sort_unstable_by_key(|finish| finish.job);
            round.ends.sort_unstable_by_key(|end| end.job);

            let mut backoff = Duration::from_millis(50);
            while let Err(error) =
                within(ANSWER, self.write(&mut connection, &mut round, write_progress)).await
            {
                if is_unwritable(&error) && round.blame() {
                    continue;
                }
                discard(&mut connection);
                if self.over.is_cancelled() {
                    error!(%error, "{taken} ends of jobs were not written; they run again after the lease");
                    return;
                }
                warn!(%error, "{taken} ends of jobs are not written yet; trying again in {backoff:?}");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(Duration::from_secs(2));
            }
            self.forget_settled(&mut round);
            self.unacknowledged.fetch_sub(taken, Ordering::AcqRel);
            if round.stale > 0 {
                metrics::counter!("streamspace_stale_total").increment(round.stale as u64);
            }
            self.queue.tell(round.notices);
            if taken > 0 {
                self.fetch.notify_one();
            }
        }
    }

    /// Under load ends come one by one, and a statement for each costs more than the jobs: waits for
    /// company, but not for long.
    async fn gather_acks(&self, acks: &mut mpsc::UnboundedReceiver<Ack>, buffer: &mut Vec<Ack>) {
        let enough = self.options.concurrency.min(BATCH).div_ceil(2);
        if buffer.len() + acks.len() < enough {
            tokio::time::sleep(GATHER).await;
        }
        while buffer.len() < BATCH
            && let Ok(ack) = acks.try_recv()
        {
            buffer.push(ack);
        }
    }

    /// Writes what is left of the round; what succeeded is taken out of it.
    async fn write(
        &self,
        connection: &mut Option<sqlx::pool::PoolConnection<sqlx::Postgres>>,
        round: &mut Round,
        write_progress: bool,
    ) -> sqlx::Result<()> {
        let deliveries = !self.delivered.lock().expect("no panic while it was held").is_empty();
        if write_progress && round.progress.is_empty() {
            round.progress = self.unwritten_progress();
        }
        let idle = round.finishes.is_empty() && round.ends.is_empty() && round.parks.is_empty();
        if idle && !deliveries && round.progress.is_empty() {
            return Ok(());
        }
        let conn: &mut PgConnection = match connection {
            Some(open) => open,
            None => connection.insert(self.queue.db().direct().acquire().await?),
        };
        if deliveries {
            let delivered = self.delivered.lock().expect("no panic while it was held").clone();
            round.notices.merge(settle::mark_cancel_delivered(conn, &delivered).await?);
            self.delivered.lock().expect("no panic while it was held").retain(|job| !delivered.contains(job));
        }
        while !round.finishes.is_empty() {
            let now = round.at_once(round.finishes.len());
            let mut settled = settle::finish(conn, &round.finishes[now.clone()]).await?;
            if settled.jobs < now.len() {
                let attempts = round.finishes[now.clone()].iter().map(|finish| (finish.job, finish.fence));
                settled.succeeded = settle::already_succeeded(conn, attempts).await?;
            }
            round.stale += now.len() - settled.succeeded.len();
            round.settled.extend(round.finishes.drain(now).map(|finish| (finish.job, finish.fence)));
            round.notices.merge(settled.notices);
            count_succeeded(settled.succeeded);
        }
        while !round.ends.is_empty() {
            let now = round.at_once(round.ends.len());
            let mut settled = settle::end(conn, &round.ends[now.clone()]).await?;
            if settled.jobs < now.len() {
                // An effect was committed, and its handler never heard of it.
                let attempts = round.ends[now.clone()].iter().map(|end| (end.job, end.fence));
                settled.succeeded = settle::already_succeeded(conn, attempts).await?;
            }
            round.stale += now.len() - settled.jobs - settled.succeeded.len();
            count_succeeded(settled.succeeded);
            round.settled.extend(round.ends.drain(now).map(|end| (end.job, end.fence)));
            round.notices.merge(settled.notices);
        }
        while let Some(Ack::Park { job, fence, tenant, event, timeout_ms, snapshot, keyed }) =
            round.parks.last()
        {
            let mut tx = sqlx::Connection::begin(&mut *conn).await?;
            let park =
                Park { job: *job, fence: *fence, tenant: *tenant, event, timeout_ms: *timeout_ms, snapshot };
            let parked = events::park(&mut tx, &park).await?;
            if *keyed {
                let keys = sqlx::query_scalar!(
                    "delete from job_slots where job_id = $1 and fence = $2 returning key",
                    job.0,
                    fence,
                )
                .fetch_all(&mut *tx)
                .await?;
                round.notices.unblock.extend(keys);
            }
            tx.commit().await?;
            round.settled.push((*job, *fence));
            match parked {
                Some(parked) => {
                    let outcome = if parked.cancelled { "cancelled" } else { "parked" };
                    metrics::counter!("streamspace_jobs_total", "kind" => parked.kind, "outcome" => outcome)
                        .increment(1);
                    round.notices.merge(parked.notices);
                }
                None => round.stale += 1,
            }
            round.parks.pop();
        }
        if !round.progress.is_empty() {
            round.notices.merge(settle::write_progress(conn, &round.progress).await?);
            round.progress.clear();
        }
        Ok(())
    }

    fn unwritten_progress(&self) -> Vec<(JobId, i64, serde_json::Value)> {
        let mut progress: Vec<_> = self
            .live()
            .into_iter()
            .filter_map(|live| live.hold.take_progress().map(|value| (live.hold.id, live.hold.fence, value)))
            .collect();
        progress.sort_unstable_by_key(|(job, ..)| *job);
        progress
    }

    fn forget_settled(&self, round: &mut Round) {
        if round.settled.is_empty() {
            return;
        }
        let controls = self.controls();
        for (job, fence) in std::mem::take(&mut round.settled) {
            if let Some(live) = self.remove_attempt(job, fence)
                && controls.limits_queue(&live.queue)
            {
                round.notices.freed.insert(live.queue.clone());
            }
        }
    }
}

fn count_succeeded(kinds: Vec<String>) {
    for kind in kinds {
        metrics::counter!("streamspace_jobs_total", "kind" => kind, "outcome" => "succeeded").increment(1);
    }
}

impl Round {
    /// Which are written now, of so many.
    fn at_once(&self, many: usize) -> Range<usize> {
        0..if self.one_by_one { 1 } else { many }
    }

    /// The database refuses a value, so it would refuse it for ever. Finds out whose it is by writing
    /// each alone; then keeps that outcome and drops what was said with it. Answers whether there is
    /// anything left to drop.
    fn blame(&mut self) -> bool {
        if !self.one_by_one && self.finishes.len() + self.ends.len() > 1 {
            self.one_by_one = true;
            return true;
        }
        if let Some(finish) = self.finishes.first_mut() {
            let said = finish.result.take().is_some() | finish.progress.take().is_some();
            finish.warning = Some("the result could not be stored".into());
            error!(job.id = %finish.job, "the database refuses its result: it is kept without");
            return said;
        }
        if let Some(end) = self.ends.first_mut() {
            let said = end.error.take().is_some() | end.progress.take().is_some();
            end.warning = Some("the error's message could not be stored".into());
            error!(job.id = %end.job, "the database refuses its error: it is kept without");
            return said;
        }
        if let Some(Ack::Park { job, fence, .. }) = self.parks.pop() {
            error!(job.id = %job, "the database refuses its event: it fails");
            let error = serde_json::json!({ "kind": "park", "message": "it can't wait for such an event" });
            let failed = End {
                verdict: Verdict::Failed,
                error: Some(error),
                counted: true,
                ..End::release(job, fence)
            };
            self.ends.push(failed);
            return true;
        }
        if !self.progress.is_empty() {
            error!("the database refuses what {} jobs say of their progress", self.progress.len());
            self.progress.clear();
            return true;
        }
        false
    }
}

/// A value that PostgreSQL can't store, such as a NUL in a text (class 22) or too long a key (54).
fn is_unwritable(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .is_some_and(|code| code.starts_with("22") || code.starts_with("54"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use streamspace_common::telemetry;
    use streamspace_testkit::Postgres;

    use super::*;
    use crate::WorkerOptions;

    /// Whatever the attempt says then, its own commit is no other's.
    #[tokio::test]
    async fn a_success_whose_answer_was_lost_is_counted_as_one() {
        let metrics = telemetry::metrics();
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        let postgres = Postgres::shared().await;
        let database =
            postgres.template(&migrations).await.expect("a template").database().await.expect("a database");
        let engine = Engine::bare_on(database.url(), WorkerOptions::default());
        let mut ends = Vec::new();
        // The first was completed by the attempt itself, the second by a later one.
        for fence in [2_i64, 4] {
            let job = JobId::new();
            let add = "insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms,
                                         max_attempts, state, fence, kind, queue, lane, creator_type, args)
                       values ($1, $1, now(), now(), now(), 1, 1, 1, 'succeeded', $2, 'test.unheard', 'test', 'test',
                               'system', '{}')";
            let pool = engine.queue.db().pool();
            sqlx::query(add).bind(job.0).bind(fence).execute(pool).await.expect("added");
            let verdict = Verdict::Outage { after_ms: 1 };
            ends.push(End { verdict, counted: true, ..End::release(job, 1) });
        }
        let mut round = Round { ends, ..Round::default() };
        engine.write(&mut None, &mut round, false).await.expect("written");
        assert_eq!(round.stale, 1);
        let counted = r#"streamspace_jobs_total{kind="test.unheard",outcome="succeeded"} 1"#;
        assert!(metrics.render().lines().any(|line| line == counted));
    }
}
