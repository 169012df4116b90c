//! Once a second: what this process would otherwise have to be told. One statement reads it all, and
//! nothing that may take long is done here: that is `reap`'s and `sweep`'s.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sqlx::{PgConnection, types::Json};
use streamspace_common::{BootId, JobId, TenantId};
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    Engine,
    controls::{Control, Controls},
    reap::{Seen, Worker, silent},
};
use crate::db::ANSWER;

const EVERY: Duration = Duration::from_secs(1);
/// The most that one gap between two readings counts as silence.
const MOST_SILENCE: Duration = Duration::from_millis(1500);

struct Pulse {
    workers: Vec<Worker>,
    controls: Vec<Control>,
    /// Whether an operator drains this worker; unknown once it was taken for dead.
    drained: Option<bool>,
    suspended: HashSet<TenantId>,
    cancels: Vec<JobId>,
}

impl Engine {
    pub(super) async fn pulse(self: Arc<Self>) {
        let mut seen: HashMap<BootId, Seen> = HashMap::new();
        let mut last_read: Option<Instant> = None;
        let mut idle_since: Option<Instant> = None;
        loop {
            let pulse = self
                .queue
                .db()
                .direct_within(ANSWER, async |conn| self.pulse_once(conn, &mut seen, &mut last_read).await);
            match pulse.await {
                Ok(false) => {}
                Ok(true) => self.dead.notify_one(),
                Err(error) => {
                    last_read = None;
                    warn!(%error, "the pulse could not read the database");
                }
            }
            self.end_if_drained(&mut idle_since);
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.pulse.notified() => {}
                () = self.over.cancelled() => return,
            }
        }
    }

    /// Answers whether a worker was taken for dead.
    async fn pulse_once(
        &self,
        conn: &mut PgConnection,
        seen: &mut HashMap<BootId, Seen>,
        last_read: &mut Option<Instant>,
    ) -> sqlx::Result<bool> {
        let running: Vec<Uuid> =
            self.attempts.lock().expect("no panic while it was held").keys().map(|job| job.0).collect();
        let pulse = read(&mut *conn, self.boot(), &running).await?;
        let gap = last_read.map_or(Duration::ZERO, |at| at.elapsed()).min(MOST_SILENCE);
        *last_read = Some(Instant::now());

        let drained = pulse.drained.unwrap_or_else(|| self.controls().is_drained());
        self.set_controls(Controls::new(pulse.controls, drained).without(pulse.suspended));
        self.informed.cancel();
        for job in pulse.cancels {
            self.cancel(job);
        }
        let dead = silent(seen, &pulse.workers, gap, self.options.lease, self.options.heartbeat, self.boot());
        let mut taken_over = false;
        for (boot, beats) in dead {
            // Whoever removes the row at this beat has the last word; a beat in between saves it.
            let removed =
                sqlx::query!("delete from workers where boot_id = $1 and beats = $2", boot.0, beats)
                    .execute(&mut *conn)
                    .await?
                    .rows_affected();
            if removed > 0 {
                warn!(%boot, "a worker was silent for its lease: taking over its jobs");
                taken_over = true;
            }
        }
        Ok(taken_over)
    }

    /// A drain can be taken back as long as something runs. Abandoned handlers hold their slots by this
    /// worker's row, so they are waited for, but no longer than a stop waits for jobs: some never end.
    fn end_if_drained(&self, idle_since: &mut Option<Instant>) {
        let idle = self.attempts.lock().expect("no panic while it was held").is_empty();
        if self.options.stays || !idle || !self.controls().is_drained() {
            *idle_since = None;
            return;
        }
        let waited = idle_since.get_or_insert_with(Instant::now).elapsed();
        if self.abandoned.load(Ordering::Acquire) == 0 || waited >= self.options.shutdown_timeout {
            self.draining.cancel();
        }
    }

    pub(super) fn set_controls(&self, controls: Controls) {
        let mut current = self.controls.write().expect("no panic while it was held");
        if **current != controls {
            if current.is_drained() != controls.is_drained() {
                let asks = if controls.is_drained() { "no more jobs" } else { "jobs again" };
                info!("an operator wants this worker to take {asks}");
            }
            *current = Arc::new(controls);
            drop(current);
            self.lanes.lock().expect("no panic while it was held").controls_changed();
            self.fetch.notify_one();
            // After what waits most: who was blocked in a queue that is resumed.
            self.sweep.notify_one();
        }
    }
}

/// Cancels are read by the ids that run here: while an old snapshot keeps its dead entries, the index
/// of running jobs holds every job since.
async fn read(conn: &mut PgConnection, boot: BootId, running: &[Uuid]) -> sqlx::Result<Pulse> {
    let row = sqlx::query!(
        r#"select
             (select coalesce(jsonb_agg(jsonb_build_object('boot_id', boot_id, 'beats', beats,
                       'age', extract(epoch from queue.now() - beat_at))), '[]') from workers)
               as "workers!: Json<Vec<Worker>>",
             (select coalesce(jsonb_agg(jsonb_build_object('queue', queue, 'tenant_id', tenant_id,
                       'paused', paused_at is not null, 'max_running', max_running, 'rate_count', rate_count,
                       'rate_period_ms', rate_period_ms)), '[]') from queue_controls
              where paused_at is not null or max_running is not null or rate_count is not null)
               as "controls!: Json<Vec<Control>>",
             (select draining from workers where boot_id = $1) as drained,
              array(select id from tenants where not active) as "suspended!",
             array(select id from jobs where id = any($2) and boot_id = $1
                   and cancel_requested_at is not null and cancel_delivered_at is null) as "cancels!""#,
        boot.0,
        running,
    )
    .fetch_one(conn)
    .await?;
    Ok(Pulse {
        workers: row.workers.0,
        controls: row.controls.0,
        suspended: row.suspended.into_iter().map(TenantId).collect(),
        drained: row.drained,
        cancels: row.cancels.into_iter().map(JobId).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WorkerOptions;

    #[tokio::test]
    async fn a_drain_waits_for_abandoned_handlers_but_not_for_ever() {
        let engine = Engine::bare(WorkerOptions::default());
        engine.set_controls(Controls::new(Vec::new(), true));
        engine.abandoned.store(1, Ordering::Release);
        let mut idle_since = None;
        engine.end_if_drained(&mut idle_since);
        assert!(idle_since.is_some() && !engine.draining.is_cancelled());
        idle_since = Instant::now().checked_sub(engine.options.shutdown_timeout);
        engine.end_if_drained(&mut idle_since);
        assert!(engine.draining.is_cancelled());
    }
}
