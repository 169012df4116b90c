//! The lease of everything that runs here: one row, touched at every beat.

use std::{collections::HashSet, sync::Arc, time::Duration};

use streamspace_common::{BootId, JobId};
use tracing::{info, warn};

use super::{Engine, Stop};
use crate::settle::{End, Verdict};

/// A beat that gets no answer must not hold up the next.
const TIMEOUT: Duration = Duration::from_secs(2);

impl Engine {
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
        let mut conn = self.queue.db().direct().acquire().await?;
        sqlx::query!(
            "insert into workers (boot_id, host, pid, version, release, queues, kinds, concurrency, started_at, beat_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, queue.now(), queue.now())
             on conflict (boot_id) do nothing",
            self.boot().0,
            self.options.host,
            i32::try_from(std::process::id()).unwrap_or(0),
            env!("CARGO_PKG_VERSION"),
            self.queue.release().0,
            self.options.queues.as_deref(),
            &self.registry.versions(),
            i32::try_from(self.options.concurrency).unwrap_or(i32::MAX),
        )
        .execute(&mut *conn)
        .await?;
        info!(boot = %self.boot(), "worker registered");
        Ok(())
    }

    pub(super) async fn unregister(&self) {
        let boot = self.boot();
        let gone = tokio::time::timeout(TIMEOUT, async {
            let mut conn = self.queue.db().direct().acquire().await?;
            sqlx::query!("delete from workers where boot_id = $1", boot.0).execute(&mut *conn).await
        })
        .await;
        if !matches!(gone, Ok(Ok(_))) {
            warn!("could not unregister; others notice after the lease");
        }
    }

    pub(super) async fn beat(self: Arc<Self>) {
        let mut interval = tokio::time::interval(self.options.heartbeat);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Rows of ours that we do not run, as of the last beat: a claim whose answer was lost looks
        // the same as one whose answer is on its way, so only what stays is released.
        let mut suspects: HashSet<(JobId, i64)> = HashSet::new();
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = self.over.cancelled() => return,
            }
            match tokio::time::timeout(TIMEOUT, self.beat_once(&mut suspects)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "a beat was missed"),
                Err(_) => warn!("a beat got no answer within {TIMEOUT:?}"),
            }
        }
    }

    async fn beat_once(&self, suspects: &mut HashSet<(JobId, i64)>) -> sqlx::Result<()> {
        let running = i32::try_from(self.live().len()).unwrap_or(i32::MAX);
        let abandoned = i32::try_from(self.abandoned.load(std::sync::atomic::Ordering::Acquire)).unwrap_or(0);
        let boot = self.boot();
        let mut conn = self.queue.db().direct().acquire().await?;
        let beat = sqlx::query!(
            r#"with beat as (
                 update workers set beats = beats + 1, beat_at = queue.now(), running = $2, abandoned = $3
                 where boot_id = $1 returning draining)
               select b.draining, array(select id from jobs where state = 'running' and boot_id = $1) as "jobs!",
                      array(select fence from jobs where state = 'running' and boot_id = $1) as "fences!"
               from beat b"#,
            boot.0,
            running,
            abandoned,
        )
        .fetch_optional(&mut *conn)
        .await?;
        drop(conn);
        let Some(beat) = beat else {
            self.lost(boot).await;
            suspects.clear();
            return Ok(());
        };
        if beat.draining && !self.draining.is_cancelled() {
            info!("draining: an operator asked for it");
            self.draining.cancel();
        }
        let known = self.attempts.lock().expect("no panic while it was held");
        let unknown: HashSet<(JobId, i64)> = beat
            .jobs
            .into_iter()
            .map(JobId)
            .zip(beat.fences)
            .filter(|(job, _)| !known.contains_key(job))
            .collect();
        drop(known);
        for (job, fence) in unknown.intersection(suspects) {
            warn!(job.id = %job, "releasing a job that was claimed but never arrived");
            self.settle(super::acknowledge::Ack::End(End {
                job: *job,
                fence: *fence,
                start_us: 0,
                verdict: Verdict::Release,
                error: None,
                warning: None,
                progress: None,
                keep_slots: false,
            }));
        }
        *suspects = unknown;
        Ok(())
    }

    /// Others took this process for dead and took over its jobs: stop them here, and start anew
    /// under another identity.
    async fn lost(&self, boot: BootId) {
        warn!(%boot, "this worker was taken for dead: it was silent for longer than its lease");
        metrics::counter!("streamspace_leases_lost_total").increment(1);
        for live in self.live() {
            live.stop(Stop::Lost);
        }
        *self.boot.write().expect("no panic while it was held") = BootId::new();
        self.register().await;
    }
}
