//! The reaper: takes jobs and slots from workers that are dead.
//!
//! A worker is dead when its beats stand still for a lease as measured by *our* monotonic clock, and
//! only over the time in which we could read them: neither a jump of a clock nor a database that was
//! away makes a live worker look dead.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use sqlx::PgConnection;
use streamspace_common::{BootId, JobId, TenantId};
use tracing::info;

use super::{
    Engine,
    sweep::{Due, EVERY, Found},
};
use crate::{
    model::State,
    notice::{Lane, Notices},
};

/// Jobs of one rescue.
const MOST: usize = 5_000;

/// What is known of another worker.
pub(super) struct Seen {
    beats: i64,
    silent: Duration,
}

#[derive(Debug, Deserialize)]
pub(super) struct Worker {
    boot_id: BootId,
    beats: i64,
    /// By the database's clock; believed only for a worker that was never seen before.
    age: f64,
}

impl Engine {
    /// Rescues at once when the pulse saw a worker die, until it is done, and looks now and then for what
    /// nobody saw. Controls and cancels do not wait for it, and it does not wait for the sweeps.
    pub(super) async fn reap(self: Arc<Self>) {
        let (mut orphans, mut died) = (Due::now(), false);
        loop {
            if orphans.sweep(&self, "what dead workers left", take_orphans).await {
                died = false;
            } else if died {
                orphans.hurry();
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.dead.notified() => (orphans, died) = (Due::now(), true),
                () = self.over.cancelled() => return,
            }
        }
    }
}

async fn take_orphans(conn: &mut PgConnection) -> sqlx::Result<Found> {
    if any_orphans(&mut *conn).await? { rescue(conn).await } else { Ok(Found::default()) }
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
pub(super) fn silent(
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
///
/// It waits for nobody: what is locked, by an end that never commits perhaps, is left for the next look.
async fn rescue(conn: &mut PgConnection) -> sqlx::Result<Found> {
    let mut tx = sqlx::Connection::begin(conn).await?;
    let rows = sqlx::query!(
        r#"with lost as materialized (
             select id from jobs
             where state = 'running' and not exists (select from workers w where w.boot_id = jobs.boot_id)
             order by id limit $1 for update skip locked)
           update jobs j set
                  state = (case when j.cancel_requested_at is not null then 'cancelled'
                                when j.attempt >= j.max_attempts then 'failed' else 'queued' end)::job_state,
                  fence = j.fence + 1, row_version = j.row_version + 1, boot_id = null,
                  lane = j.queue, unknown_since = null,
                  run_at = case when j.cancel_requested_at is null and j.attempt < j.max_attempts
                                then queue.now() else j.run_at end,
                  park_key = case when j.cancel_requested_at is null and j.attempt < j.max_attempts
                                  then j.park_key end,
                  finished_at = case when j.cancel_requested_at is not null or j.attempt >= j.max_attempts
                                     then queue.now() end,
                  cancel_stopped_at = case when j.cancel_requested_at is not null then queue.now() end,
                  errors = queue.append_error(j.errors, jsonb_build_object('attempt', j.attempt,
                             'kind', 'worker_lost', 'message', 'the worker that ran it stopped answering'))
           where j.id = any (array (select id from lost))
           returning j.id as "id: JobId", j.tenant_id as "tenant: TenantId", j.state as "state: State", j.lane,
                     j.order_at, j.row_version, j.unique_mode, j.kind"#,
        MOST as i64,
    )
    .fetch_all(&mut *tx)
    .await?;
    let over: Vec<_> = rows
        .iter()
        .filter(|row| row.state.is_terminal() && matches!(row.unique_mode, 1 | 2))
        .map(|row| row.id.0)
        .collect();
    if !over.is_empty() {
        // One that somebody has locked is being taken over: it is left to them, as by every end.
        sqlx::query!(
            "delete from job_keys where (tenant_id, kind, key) in (
               select tenant_id, kind, key from job_keys where job_id = any($1) for update skip locked)",
            &over,
        )
        .execute(&mut *tx)
        .await?;
    }
    let freed = sqlx::query_scalar!(
        "delete from job_slots where (key, slot_no) in (
           select key, slot_no from job_slots s where not exists (select from workers w where w.boot_id = s.boot_id)
           order by key, slot_no for update skip locked)
         returning key",
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    if !rows.is_empty() {
        info!("rescued {} jobs", rows.len());
        metrics::counter!("streamspace_rescued_total").increment(rows.len() as u64);
    }
    let full = rows.len() == MOST;
    let mut notices = Notices { unblock: freed.into_iter().collect(), ..Notices::default() };
    for row in rows {
        notices.changed(row.id, row.row_version);
        let outcome = match row.state {
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            _ => "retried",
        };
        metrics::counter!("streamspace_jobs_total", "kind" => row.kind, "outcome" => outcome).increment(1);
        if row.state == State::Queued {
            notices.claimable(Lane { name: row.lane, tenant: row.tenant }, row.order_at.to_jiff());
        }
    }
    Ok(Found { notices, full })
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
