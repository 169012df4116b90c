//! Once a second: what this process would otherwise have to be told. One statement reads it all.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{PgConnection, types::Json};
use streamspace_common::{BootId, JobId, TenantId};
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    Engine,
    controls::{Control, Controls},
    reap::{Seen, Worker, any_orphans, rescue, silent},
};
use crate::{
    db::ANSWER,
    keys,
    notice::{Lane, Notices},
};

const EVERY: Duration = Duration::from_secs(1);
/// What an old snapshot makes slow takes at most one part in so many of the time.
const SELDOM: u32 = 20;
/// The most that one gap between two readings counts as silence.
const MOST_SILENCE: Duration = Duration::from_millis(1500);

/// When what may take long is looked at again.
struct Looks {
    orphans: Instant,
    stuck: Instant,
}

struct Pulse {
    workers: Vec<Worker>,
    controls: Vec<Control>,
    /// Whether an operator drains this worker; unknown once it was taken for dead.
    drained: Option<bool>,
    suspended: HashSet<TenantId>,
    cancels: Vec<JobId>,
    blocked: bool,
    unknown: bool,
}

impl Engine {
    pub(super) async fn pulse(self: Arc<Self>) {
        let mut seen: HashMap<BootId, Seen> = HashMap::new();
        let mut last_read: Option<Instant> = None;
        let mut scan_after = Instant::now();
        let mut not_before = Looks { orphans: Instant::now(), stuck: Instant::now() };
        let mut scanned: Option<Lane> = None;
        let mut idle_since: Option<Instant> = None;
        loop {
            let pulse = self.queue.db().direct_within(ANSWER, async |conn| {
                self.pulse_once(conn, &mut seen, &mut last_read, &mut not_before).await
            });
            match pulse.await {
                Ok(()) => self.informed.cancel(),
                Err(error) => {
                    last_read = None;
                    warn!(%error, "the pulse could not read the database");
                }
            }
            self.end_if_drained(&mut idle_since);
            if Instant::now() >= scan_after {
                let began = Instant::now();
                if let Err(error) = self.scan_lanes(&mut scanned).await {
                    warn!(%error, "the lanes could not be read");
                }
                scan_after = Instant::now() + began.elapsed() * SELDOM;
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.pulse.notified() => {}
                () = self.over.cancelled() => return,
            }
        }
    }

    async fn pulse_once(
        &self,
        conn: &mut PgConnection,
        seen: &mut HashMap<BootId, Seen>,
        last_read: &mut Option<Instant>,
        not_before: &mut Looks,
    ) -> sqlx::Result<()> {
        let running: Vec<Uuid> =
            self.attempts.lock().expect("no panic while it was held").keys().map(|job| job.0).collect();
        let pulse = read(&mut *conn, self.boot(), &running).await?;
        let gap = last_read.map_or(Duration::ZERO, |at| at.elapsed()).min(MOST_SILENCE);
        *last_read = Some(Instant::now());

        let drained = pulse.drained.unwrap_or_else(|| self.controls().is_drained());
        self.set_controls(Controls::new(pulse.controls, drained).without(pulse.suspended));
        for job in pulse.cancels {
            self.cancel(job);
        }
        let dead = silent(seen, &pulse.workers, gap, self.options.lease, self.options.heartbeat, self.boot());
        let mut orphans = false;
        if Instant::now() >= not_before.orphans {
            let began = Instant::now();
            orphans = any_orphans(&mut *conn).await?;
            not_before.orphans = Instant::now() + began.elapsed() * SELDOM;
        }
        for (boot, beats) in dead {
            // Whoever removes the row at this beat has the last word; a beat in between saves it.
            let removed =
                sqlx::query!("delete from workers where boot_id = $1 and beats = $2", boot.0, beats)
                    .execute(&mut *conn)
                    .await?
                    .rows_affected();
            if removed > 0 {
                warn!(%boot, "a worker was silent for its lease: taking over its jobs");
                orphans = true;
            }
        }
        if orphans {
            let notices = rescue(&mut *conn).await?;
            self.queue.tell(notices);
        }
        if pulse.unknown {
            self.give_up_unknown(&mut *conn).await?;
        }
        if pulse.blocked && Instant::now() >= not_before.stuck {
            let began = Instant::now();
            let stuck = keys::stuck(&mut *conn).await?;
            not_before.stuck = Instant::now() + began.elapsed() * SELDOM;
            if !stuck.is_empty() {
                self.queue.tell(Notices { unblock: stuck.into_iter().collect(), ..Notices::default() });
            }
        }
        Ok(())
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
        }
    }

    /// Learns lanes and places that no notice told of. Goes on where the last look had to stop.
    async fn scan_lanes(&self, after: &mut Option<Lane>) -> sqlx::Result<()> {
        let from = after.take();
        let found =
            self.queue.db().direct_within(ANSWER, async |conn| lanes(conn, from.as_ref()).await).await?;
        if found.len() == LANES {
            *after = found.last().map(|(lane, _)| lane.clone());
        }
        let mut new = false;
        let mut lanes = self.lanes.lock().expect("no panic while it was held");
        for (lane, first) in found {
            if self.serves(&lane) {
                new |= lanes.find(&lane, first);
            }
        }
        drop(lanes);
        if new {
            self.fetch.notify_one();
        }
        Ok(())
    }
}

/// Lanes of one look.
const LANES: usize = 5_000;

/// Every lane that has claimable jobs and the place of its first, by a loose scan of the claim index:
/// one probe a lane, not one step a job.
async fn lanes(conn: &mut PgConnection, after: Option<&Lane>) -> sqlx::Result<Vec<(Lane, Timestamp)>> {
    let rows = sqlx::query!(
        r#"with recursive lanes as (
             (select lane, tenant_id, order_at from jobs where state = 'queued' and (lane, tenant_id) > ($1, $2)
              order by lane, tenant_id, order_at limit 1)
             union all
             select n.lane, n.tenant_id, n.order_at from lanes l
             cross join lateral (
               select j.lane, j.tenant_id, j.order_at from jobs j
               where j.state = 'queued' and (j.lane, j.tenant_id) > (l.lane, l.tenant_id)
               order by j.lane, j.tenant_id, j.order_at limit 1) n)
           select lane as "lane!", tenant_id as "tenant!: TenantId", order_at as "order_at!"
           from lanes limit $3"#,
        after.map_or("", |lane| lane.name.as_str()),
        after.map_or(Uuid::nil(), |lane| lane.tenant.0),
        LANES as i64,
    )
    .fetch_all(conn)
    .await?;
    let found = |tenant, lane, at: jiff_sqlx::Timestamp| (Lane { name: lane, tenant }, at.to_jiff());
    Ok(rows.into_iter().map(|row| found(row.tenant, row.lane, row.order_at)).collect())
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
                   and cancel_requested_at is not null and cancel_delivered_at is null) as "cancels!",
             exists (select from jobs where state = 'blocked') as "blocked!",
             exists (select from jobs where state = 'queued' and unknown_since is not null) as "unknown!""#,
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
        blocked: row.blocked,
        unknown: row.unknown,
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
