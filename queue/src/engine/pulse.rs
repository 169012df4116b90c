//! Once a second: what this process would otherwise have to be told. One statement reads it all.
//!
//! The reaper is here. A worker is dead when its beats stand still for a lease as measured by *our*
//! monotonic clock, and only over the time in which we could read them: neither a jump of a clock
//! nor a database that was away makes a live worker look dead.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::Deserialize;
use sqlx::{PgConnection, types::Json};
use streamspace_common::{BootId, JobId, TenantId};
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    Engine,
    controls::{Control, Controls},
};
use crate::{
    db::ANSWER,
    keys,
    model::State,
    notice::{Lane, Notices},
};

const EVERY: Duration = Duration::from_secs(1);
/// What an old snapshot makes slow takes at most one part in so many of the time.
const SELDOM: u32 = 20;
/// The most that one gap between two readings counts as silence.
const MOST_SILENCE: Duration = Duration::from_millis(1500);

/// What is known of another worker.
struct Seen {
    beats: i64,
    silent: Duration,
}

#[derive(Debug, Deserialize)]
struct Worker {
    boot_id: BootId,
    beats: i64,
    /// By the database's clock; believed only for a worker that was never seen before.
    age: f64,
}

/// When what may take long is looked at again.
struct Looks {
    orphans: Instant,
    stuck: Instant,
}

struct Pulse {
    workers: Vec<Worker>,
    controls: Vec<Control>,
    /// An operator drains this worker.
    drained: bool,
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

        self.set_controls(Controls::new(pulse.controls, pulse.drained));
        self.end_if_drained();
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
            self.give_up_unknown().await?;
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

    /// A drain can be taken back as long as something runs.
    fn end_if_drained(&self) {
        let idle = self.attempts.lock().expect("no panic while it was held").is_empty();
        if idle && self.controls().is_drained() {
            self.draining.cancel();
        }
    }

    fn set_controls(&self, controls: Controls) {
        let mut current = self.controls.write().expect("no panic while it was held");
        if **current != controls {
            if current.is_drained() != controls.is_drained() {
                let asks = if controls.is_drained() { "no more jobs" } else { "jobs again" };
                info!("an operator wants this worker to take {asks}");
            }
            *current = Arc::new(controls);
            drop(current);
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
             exists (select from workers where boot_id = $1 and draining) as "drained!",
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
        drained: row.drained,
        cancels: row.cancels.into_iter().map(JobId).collect(),
        blocked: row.blocked,
        unknown: row.unknown,
    })
}

/// Whether a job or a slot belongs to no worker: left by one that died between the removal of a
/// worker and the rescue, or claimed by a worker that was removed meanwhile. Looks into the gaps
/// between the ids of workers, and so not over what these have run.
async fn any_orphans(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from (select boot_id as low, lead(boot_id) over (order by boot_id) as high
                                     from (select boot_id from workers
                                           union all select '00000000-0000-0000-0000-000000000000') b) gap
                          cross join lateral (
                            select from jobs j where j.state = 'running' and j.boot_id > gap.low
                              and j.boot_id < coalesce(gap.high, 'ffffffff-ffff-ffff-ffff-ffffffffffff') limit 1) o)
               or exists (select from job_slots s
                          where not exists (select from workers w where w.boot_id = s.boot_id)) as "orphans!""#,
    )
    .fetch_one(conn)
    .await
}

/// The workers that have been silent for a lease, with the beat at which they fell silent.
fn silent(
    seen: &mut HashMap<BootId, Seen>,
    workers: &[Worker],
    gap: Duration,
    lease: Duration,
    heartbeat: Duration,
    me: BootId,
) -> Vec<(BootId, i64)> {
    let alive: HashSet<BootId> = workers.iter().map(|worker| worker.boot_id).collect();
    seen.retain(|boot, _| alive.contains(boot));
    let mut dead = Vec::new();
    for worker in workers.iter().filter(|worker| worker.boot_id != me) {
        match seen.get_mut(&worker.boot_id) {
            Some(known) if known.beats == worker.beats => {
                known.silent += gap;
                if known.silent >= lease {
                    dead.push((worker.boot_id, worker.beats));
                }
            }
            Some(known) => *known = Seen { beats: worker.beats, silent: Duration::ZERO },
            None => {
                // Dead since before we started, by the only clock that there is.
                let long_ago = worker.age > (lease + heartbeat).as_secs_f64();
                let silent = if long_ago { lease } else { Duration::ZERO };
                seen.insert(worker.boot_id, Seen { beats: worker.beats, silent });
            }
        }
    }
    dead
}

/// Takes jobs and slots from processes that are gone. Raising the fence makes whatever a
/// not-so-dead process still says about them stale.
async fn rescue(conn: &mut PgConnection) -> sqlx::Result<Notices> {
    let mut tx = sqlx::Connection::begin(conn).await?;
    let rows = sqlx::query!(
        r#"with lost as materialized (
             select id from jobs
             where state = 'running' and not exists (select from workers w where w.boot_id = jobs.boot_id)
             order by id limit 5000 for update skip locked)
           update jobs j set
                  state = (case when j.cancel_requested_at is not null then 'cancelled'
                                when j.attempt >= j.max_attempts then 'failed' else 'queued' end)::job_state,
                  fence = j.fence + 1, row_version = j.row_version + 1, boot_id = null,
                  lane = j.queue, unknown_since = null,
                  park_key = case when j.cancel_requested_at is null and j.attempt < j.max_attempts
                                  then j.park_key end,
                  finished_at = case when j.cancel_requested_at is not null or j.attempt >= j.max_attempts
                                     then queue.now() end,
                  cancel_stopped_at = case when j.cancel_requested_at is not null then queue.now() end,
                  errors = queue.append_error(j.errors, jsonb_build_object('attempt', j.attempt,
                             'kind', 'worker_lost', 'message', 'the worker that ran it stopped answering'))
           where j.id = any (array (select id from lost))
           returning j.id as "id: JobId", j.tenant_id as "tenant: TenantId", j.state as "state: State", j.lane,
                     j.order_at, j.row_version, j.unique_mode"#,
    )
    .fetch_all(&mut *tx)
    .await?;
    let over: Vec<_> = rows
        .iter()
        .filter(|row| row.state.is_terminal() && matches!(row.unique_mode, 1 | 2))
        .map(|row| row.id.0)
        .collect();
    if !over.is_empty() {
        sqlx::query!("delete from job_keys where job_id = any($1)", &over).execute(&mut *tx).await?;
    }
    let freed = sqlx::query_scalar!(
        "delete from job_slots s where not exists (select from workers w where w.boot_id = s.boot_id) returning key",
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    if !rows.is_empty() {
        info!("rescued {} jobs", rows.len());
        metrics::counter!("streamspace_rescued_total").increment(rows.len() as u64);
    }
    let mut notices = Notices { unblock: freed.into_iter().collect(), ..Notices::default() };
    for row in rows {
        notices.changed(row.id, row.row_version);
        if row.state == State::Queued {
            notices.claimable(Lane { name: row.lane, tenant: row.tenant }, row.order_at.to_jiff());
        }
    }
    Ok(notices)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);
    const BEAT: Duration = Duration::from_secs(1);

    fn worker(boot: BootId, beats: i64, age: f64) -> Worker {
        Worker { boot_id: boot, beats, age }
    }

    #[test]
    fn silence_is_measured_by_our_own_clock() {
        let (mut seen, boot, me) = (HashMap::new(), BootId::new(), BootId::new());
        let mut look = |beats, age| silent(&mut seen, &[worker(boot, beats, age)], BEAT, LEASE, BEAT, me);
        assert!(look(1, 0.1).is_empty());
        // The database's clock jumped by an hour: no matter.
        assert!(look(2, 3600.0).is_empty());
        assert!(look(2, 3600.0).is_empty());
        assert!(look(2, -3600.0).is_empty());
        assert_eq!(look(2, 0.0), [(boot, 2)]);
        assert!(look(3, 0.0).is_empty());
    }

    #[test]
    fn who_was_dead_before_we_came_is_dead_at_the_second_look() {
        let (mut seen, boot, me) = (HashMap::new(), BootId::new(), BootId::new());
        let mut look = |age| silent(&mut seen, &[worker(boot, 7, age)], BEAT, LEASE, BEAT, me);
        assert!(look(60.0).is_empty());
        assert_eq!(look(61.0), [(boot, 7)]);
    }

    #[test]
    fn nobody_declares_itself_dead() {
        let (mut seen, me) = (HashMap::new(), BootId::new());
        for _ in 0..10 {
            assert!(silent(&mut seen, &[worker(me, 1, 99.0)], BEAT, LEASE, BEAT, me).is_empty());
        }
    }
}
