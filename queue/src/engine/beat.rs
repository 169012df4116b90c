//! The lease of everything that runs here: one row, touched at every beat.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sqlx::PgConnection;
use streamspace_common::{BootId, JobId};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Engine, Stop, acknowledge::Ack, live::is_under_way};
use crate::{
    db::ANSWER,
    settle::{self, End},
};

/// A beat that gets no answer must not hold up the next.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A disk that is busy writes the last word later; who started waits for the lease otherwise.
const SIGN_OFF: Duration = Duration::from_secs(10);
/// How many beats look for the jobs of a claim that failed: the server may be slow to commit it.
const LOOKS: usize = 5;
/// The net under that.
const STRAYS_EVERY: Duration = Duration::from_secs(60);

/// Rows of ours that we do not run, as of the last look, and the count of claims when each was first
/// seen.
type Suspects = HashMap<(JobId, i64), usize>;

impl Engine {
    /// Announces this process, unless it is told to end first; answers whether it may work.
    pub(super) async fn register_unless(&self, stop: &CancellationToken) -> bool {
        let mut registering = pin!(self.register());
        tokio::select! {
            () = &mut registering => return true,
            () = stop.cancelled() => {}
        }
        // What is on its way may arrive whether it is waited for or not, and a row that nobody takes
        // back looks like a worker that died.
        if tokio::time::timeout(TIMEOUT, registering).await.is_ok() {
            self.unregister().await;
        }
        false
    }

    /// Announces this process, retrying until the database takes it.
    pub(super) async fn register(&self) {
        let mut backoff = Duration::from_millis(100);
        loop {
            match self.try_register().await {
                Ok(()) => return,
                Err(error) => warn!(%error, "could not register; trying again in {backoff:?}"),
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(Duration::from_secs(2));
        }
    }

    async fn try_register(&self) -> sqlx::Result<()> {
        let insert = async |conn: &mut PgConnection| {
            sqlx::query!(
            "insert into workers (boot_id, host, pid, version, release, queues, kinds, concurrency, draining, started_at, beat_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, queue.now(), queue.now())
             on conflict (boot_id) do nothing",
            self.boot().0,
            self.options.host,
            i32::try_from(std::process::id()).unwrap_or(0),
            env!("CARGO_PKG_VERSION"),
            self.queue.release().0,
            self.options.queues.as_deref(),
            &self.registry.versions(),
            i32::try_from(self.options.concurrency).unwrap_or(i32::MAX),
            // After it was taken for dead it is still drained.
            self.controls().is_drained(),
        )
        .execute(conn)
        .await
        };
        self.queue.db().direct_within(ANSWER, insert).await?;
        info!(boot = %self.boot(), "worker registered");
        Ok(())
    }

    /// The last word: gives back what was claimed and never arrived, and ends the lease. With handlers
    /// that would not end the lease runs out by itself, and keeps their slots until then.
    pub(super) async fn unregister(&self) {
        let boot = self.boot();
        let abandoned = self.abandoned.load(Ordering::Acquire) > 0;
        let last_word = async |conn: &mut PgConnection| {
            let lost: Vec<End> = self
                .not_running_here(running(conn, boot).await?)
                .map(|(job, fence)| End::release(job, fence))
                .collect();
            let settled = settle::end(conn, &lost).await?;
            if !abandoned {
                sqlx::query!("delete from workers where boot_id = $1", boot.0).execute(conn).await?;
            }
            Ok(settled.notices)
        };
        match self.queue.db().direct_within(SIGN_OFF, last_word).await {
            Ok(notices) => self.queue.tell(notices),
            Err(error) => warn!(%error, "could not unregister; others notice after the lease"),
        }
    }

    /// Those of these rows of ours that no attempt here stands for.
    fn not_running_here(&self, rows: Vec<(JobId, i64)>) -> impl Iterator<Item = (JobId, i64)> {
        let known = self.attempts.lock().expect("no panic while it was held");
        let unknown: Vec<_> = rows
            .into_iter()
            .filter(|(job, fence)| known.get(job).is_none_or(|live| live.hold.fence != *fence))
            .collect();
        unknown.into_iter()
    }

    pub(super) async fn beat(self: Arc<Self>) {
        let mut interval = tokio::time::interval(self.options.heartbeat);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut strays = tokio::time::interval_at(tokio::time::Instant::now() + STRAYS_EVERY, STRAYS_EVERY);
        strays.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut suspects = Suspects::new();
        loop {
            let look = tokio::select! {
                _ = interval.tick() => !suspects.is_empty() || self.take_look(),
                _ = strays.tick() => true,
                () = self.over.cancelled() => return,
            };
            let limit = self.options.heartbeat.min(TIMEOUT);
            if let Err(error) = self.beat_once(limit).await {
                warn!(%error, "a beat was missed");
            }
            if look {
                // In less time than the next beat can wait.
                if let Err(error) = self.release_strays(&mut suspects, limit / 2).await {
                    warn!(%error, "could not look for jobs whose claim was lost");
                }
            }
        }
    }

    /// A claim failed, and may have gone through: for a while each beat looks for its jobs.
    pub(super) fn claim_may_be_lost(&self) {
        self.looks.store(LOOKS, Ordering::Release);
    }

    fn take_look(&self) -> bool {
        self.looks.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }

    async fn beat_once(&self, limit: Duration) -> sqlx::Result<()> {
        let running = i32::try_from(self.live().len()).unwrap_or(i32::MAX);
        let abandoned = i32::try_from(self.abandoned.load(Ordering::Acquire)).unwrap_or(0);
        let boot = self.boot();
        let beat = async |conn: &mut PgConnection| {
            sqlx::query!(
                "update workers set beats = beats + 1, beat_at = queue.now(), running = $2, abandoned = $3,
                        draining = draining or $4
                 where boot_id = $1",
                boot.0,
                running,
                abandoned,
                self.draining.is_cancelled(),
            )
            .execute(conn)
            .await
        };
        let beaten = self.queue.db().direct_within(limit, beat).await?;
        if beaten.rows_affected() == 0 {
            self.lost(boot).await;
        }
        Ok(())
    }

    /// Releases what was claimed and never arrived. A claim under way looks the same: so it is done
    /// only once the claim has ended during which the row was first seen.
    ///
    /// Not part of the beat: while an old snapshot keeps its dead entries, the index of running jobs
    /// holds every job that this process has run since, and the look takes as long as they are many.
    async fn release_strays(&self, suspects: &mut Suspects, limit: Duration) -> sqlx::Result<()> {
        let boot = self.boot();
        let rows = self.queue.db().direct_within(limit, async |conn| running(conn, boot).await).await?;
        // In this order: of a row that was read and whose claim has ended, the attempt is known.
        let claims = self.claims.load(Ordering::Acquire);
        let seen: Suspects = self
            .not_running_here(rows)
            .map(|row| (row, suspects.get(&row).copied().unwrap_or(claims)))
            .collect();
        for ((job, fence), first) in &seen {
            let again = suspects.contains_key(&(*job, *fence));
            if again && !(is_under_way(*first) && *first == claims) {
                warn!(job.id = %job, "releasing a job that was claimed but never arrived");
                self.settle(Ack::End(End::release(*job, *fence)));
            }
        }
        *suspects = seen;
        Ok(())
    }

    /// Others took this process for dead and took over its jobs: stop them here, and start anew
    /// under another identity.
    async fn lost(&self, boot: BootId) {
        warn!(%boot, "this worker was taken for dead: it was silent for longer than its lease");
        metrics::counter!("streamspace_leases_lost_total").increment(1);
        // In this order: what a claim brings meanwhile is stopped here, or sees that it comes too late.
        *self.boot.write().expect("no panic while it was held") = BootId::new();
        for live in self.live() {
            live.stop(Stop::Lost);
        }
        tokio::select! {
            () = self.register() => {}
            () = self.over.cancelled() => {}
        }
        // Nobody unknown gets jobs: lanes that were asked meanwhile count as empty.
        self.look_for_lanes();
    }
}

/// What runs under this identity, with the fence of each.
async fn running(conn: &mut PgConnection, boot: BootId) -> sqlx::Result<Vec<(JobId, i64)>> {
    let rows = sqlx::query!(
        r#"select id as "id: JobId", fence from jobs where state = 'running' and boot_id = $1"#,
        boot.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.fence)).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use streamspace_common::TenantId;

    use super::*;
    use crate::{
        claim::Claimed,
        engine::{Live, WorkerOptions},
    };

    /// Whatever a claim brings is stopped here, or its claimer sees by then that the identity is another.
    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_taken_for_dead_is_another_one_before_its_jobs_are_stopped() {
        let engine = Arc::new(Engine::bare(WorkerOptions::default()));
        // There is nobody to register with.
        engine.over.cancel();
        let boot = engine.boot();
        let job = Claimed::of(TenantId::new());
        let live = Arc::new(Live::new(&job));
        let losing = {
            let mut attempts = engine.attempts.lock().expect("no panic while it was held");
            let losing = tokio::spawn({
                let engine = engine.clone();
                async move { engine.lost(boot).await }
            });
            let began = Instant::now();
            while engine.boot() == boot {
                assert!(began.elapsed() < Duration::from_secs(10), "it is stuck with the jobs");
                std::thread::yield_now();
            }
            attempts.insert(job.id, live.clone());
            losing
        };
        losing.await.expect("no panic");
        assert_eq!(live.stopped(), Some(Stop::Lost));
    }
}
