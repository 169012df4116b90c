//! Concurrency keys: a slot is a row that a job holds, so a limit can't be passed and nothing leaks.
//!
//! A claimed job that lacks a slot becomes `blocked`, out of the claim index. Whoever frees a slot
//! promotes the oldest that wait for it, *after* its commit; whoever blocks a job looks once more
//! after its own. The later of the two sees both, so no job is forgotten; a crash between commit and
//! look is mended by the sweep.

use std::time::Duration;

use sqlx::PgConnection;
use streamspace_common::{BootId, JobId, PLATFORM, TenantId};
use tracing::warn;

use crate::{
    db::{BEGIN_IMPATIENTLY, Db, within},
    model::State,
    notice::{Lane, Notices},
};

/// What became of claimed jobs with keys.
pub(crate) struct Taken {
    /// They have all of their slots.
    pub granted: Vec<JobId>,
    /// Of the others, and of the keys to look at again: what a job lacked may have been freed while it was
    /// blocked, and what it gave back may be waited for.
    pub notices: Notices,
}

/// Takes the slots of jobs that `boot` has claimed. Those that lack one are blocked again, at no cost
/// of an attempt. A job that was taken over since its claim is none of either.
pub(crate) async fn take_slots(
    conn: &mut PgConnection,
    boot: BootId,
    jobs: &[JobId],
    fences: &[i64],
) -> sqlx::Result<Taken> {
    let jobs: Vec<_> = jobs.iter().map(|job| job.0).collect();
    let mut tx = sqlx::Connection::begin_with(conn, BEGIN_IMPATIENTLY).await?;
    // In the order of the keys, so that two claims can't wait for each other.
    let asked = sqlx::query!(
        r#"with wanted as (
             select j.id, c.fence, s.key, s.n,
                    row_number() over (partition by s.key order by j.order_at, j.id) as place
             from unnest($2::uuid[], $3::bigint[]) as c(id, fence)
             join jobs j on j.id = c.id and j.fence = c.fence
             cross join lateral unnest(j.slot_keys, j.slot_limits) as s(key, n)),
           taken as (
             insert into job_slots (key, slot_no, job_id, fence, boot_id)
             select w.key, f.slot_no, w.id, w.fence, $1 from wanted w
             cross join lateral (
               select g as slot_no from generate_series(1, w.n) as g
               where not exists (select from job_slots x where x.key = w.key and x.slot_no = g)
               order by g offset w.place - 1 limit 1) f
             order by w.key, f.slot_no
             on conflict (key, slot_no) do nothing
             returning key, job_id)
           select w.id as "id!: JobId", min(w.key) filter (where t.key is null) as lacks from wanted w
           left join taken t on t.key = w.key and t.job_id = w.id
           group by w.id"#,
        boot.0,
        &jobs,
        fences,
    )
    .fetch_all(&mut *tx)
    .await?;
    let (mut granted, mut blocked) = (Vec::new(), Vec::new());
    let (mut ids, mut keys) = (Vec::new(), Vec::new());
    for job in asked {
        match job.lacks {
            Some(key) => {
                ids.push(job.id.0);
                keys.push(key);
            }
            None => granted.push(job.id),
        }
    }
    if !ids.is_empty() {
        // By the claim's own fence: an abandoned attempt at the same job may still run here, and what
        // it holds it keeps.
        let given_back = sqlx::query_scalar!(
            "delete from job_slots s using unnest($2::uuid[], $3::bigint[]) as c(id, fence)
             where s.job_id = any($1) and s.job_id = c.id and s.fence = c.fence returning s.key",
            &ids,
            &jobs,
            fences,
        )
        .fetch_all(&mut *tx)
        .await?;
        // In the order of ids, as bulk operations lock them too.
        blocked = sqlx::query!(
            r#"with locked as materialized (
               select j.id, b.key from unnest($1::uuid[], $2::text[]) as b(id, key) join jobs j on j.id = b.id
               where j.boot_id = $3 order by j.id for no key update of j),
             back as (
               update jobs j set
                      state = (case when j.cancel_requested_at is null then 'blocked' else 'cancelled' end)::job_state,
                      blocked_on = case when j.cancel_requested_at is null then b.key end, boot_id = null,
                      finished_at = case when j.cancel_requested_at is not null then queue.now() end,
                      cancel_stopped_at = case when j.cancel_requested_at is not null then queue.now() end,
                      attempt = j.attempt - 1, fence = j.fence + 1, row_version = j.row_version + 1
               from locked b
               where j.id = b.id and j.boot_id = $3
               returning j.id, j.state, j.unique_mode, j.kind, j.row_version),
             over as (
               delete from job_keys where (tenant_id, kind, key) in (
                 select k.tenant_id, k.kind, k.key from back join job_keys k on k.job_id = back.id
                 where back.state = 'cancelled' and back.unique_mode in (1, 2) for update of k skip locked))
             select id as "id: JobId", state as "state: State", kind, row_version from back"#,
            &ids,
            &keys,
            boot.0,
        )
        .fetch_all(&mut *tx)
        .await?;
        keys.extend(given_back);
    }
    tx.commit().await?;
    let mut notices = Notices { unblock: keys.into_iter().collect(), ..Notices::default() };
    for job in blocked {
        notices.changed(job.id, job.row_version);
        if job.state == State::Cancelled {
            metrics::counter!("streamspace_jobs_total", "kind" => job.kind, "outcome" => "cancelled")
                .increment(1);
        }
    }
    Ok(Taken { granted, notices })
}

/// Moves the oldest jobs that wait for these keys back into their lanes, as many as there are free
/// slots. Promoting one too many costs a claim: it is blocked again.
///
/// Jobs that stand still, by their tenant or their queue, are passed over: a slot that is promised to them
/// is nobody's. The sweep looks after them when they go on.
pub(crate) async fn unblock(conn: &mut PgConnection, keys: &[String]) -> sqlx::Result<Notices> {
    let promoted = sqlx::query!(
        r#"update jobs j set state = 'queued', blocked_on = null, row_version = j.row_version + 1
           where j.id = any (array (
             select b.id from unnest($1::text[]) as k(key)
             cross join lateral (
               select s.n - (select count(*) from job_slots x where x.key = k.key) as free
               from jobs f, unnest(f.slot_keys, f.slot_limits) as s(key, n)
               where f.state = 'blocked' and f.blocked_on = k.key and s.key = k.key
                 and f.tenant_id <> all(array(select id from tenants where not active))
                 and not exists (select from queue_controls c where c.queue = f.queue and c.paused_at is not null
                                   and c.tenant_id in (f.tenant_id, $2))
               order by f.order_at, f.id limit 1) l
             cross join lateral (
               select b.id from jobs b where b.state = 'blocked' and b.blocked_on = k.key
                 and b.tenant_id <> all(array(select id from tenants where not active))
                 and not exists (select from queue_controls c where c.queue = b.queue and c.paused_at is not null
                                   and c.tenant_id in (b.tenant_id, $2))
               order by b.order_at, b.id limit greatest(l.free, 0) for update of b skip locked) b))
           returning j.id as "id: JobId", j.tenant_id as "tenant: TenantId", j.lane, j.order_at, j.row_version"#,
        keys,
        PLATFORM.0,
    )
    .fetch_all(conn)
    .await?;
    let mut notices = Notices::default();
    for job in promoted {
        notices.claimable(Lane { name: job.lane, tenant: job.tenant }, job.order_at.to_jiff());
        notices.changed(job.id, job.row_version);
    }
    Ok(notices)
}

pub(crate) const MOST_STUCK: usize = 500;

/// Keys that jobs wait for although a slot is free: left by a process that died between freeing
/// the slot and looking who waits, or by jobs that stood still. At most [`MOST_STUCK`] a call.
pub(crate) async fn stuck(conn: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"with recursive waiting as (
             (select blocked_on as key from jobs where state = 'blocked' order by blocked_on limit 1)
             union all
             select (select j.blocked_on from jobs j where j.state = 'blocked' and j.blocked_on > w.key
                     order by j.blocked_on limit 1)
             from waiting w where w.key is not null)
           select w.key as "key!" from waiting w
           cross join lateral (
             select s.n from jobs f, unnest(f.slot_keys, f.slot_limits) as s(key, n)
             where f.state = 'blocked' and f.blocked_on = w.key and s.key = w.key
               and f.tenant_id <> all(array(select id from tenants where not active))
               and not exists (select from queue_controls c where c.queue = f.queue and c.paused_at is not null
                                 and c.tenant_id in (f.tenant_id, $1))
             order by f.order_at, f.id limit 1) l
           where (select count(*) from job_slots x where x.key = w.key) < l.n
           limit $2"#,
        PLATFORM.0,
        MOST_STUCK as i64,
    )
    .fetch_all(conn)
    .await
}

/// How long one try may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Frees the slots of an abandoned attempt whose task has ended at last. Nobody else would while this
/// process lives, so it is tried until it succeeds or the connections are closed. Not on a direct
/// connection: there may be several such attempts, and the beat must not wait for one.
pub(crate) async fn free_abandoned(db: &Db, job: JobId, fence: i64) -> sqlx::Result<Vec<String>> {
    let mut backoff = Duration::from_millis(100);
    loop {
        match within(ANSWER, free(db, job, fence)).await {
            Err(error) if !db.pool().is_closed() => {
                warn!(job.id = %job, %error, "its slots are not freed yet; trying again in {backoff:?}");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(Duration::from_secs(10));
            }
            ended => return ended,
        }
    }
}

async fn free(db: &Db, job: JobId, fence: i64) -> sqlx::Result<Vec<String>> {
    let mut tx = db.begin().await?;
    let freed = sqlx::query_scalar!(
        "delete from job_slots where job_id = $1 and fence = $2 returning key",
        job.0,
        fence,
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::Connection;
    use streamspace_common::{TenantId, telemetry};
    use streamspace_testkit::{Database, Postgres, eventually};
    use uuid::Uuid;

    use super::*;

    /// Jobs that `boot` has claimed while somebody else has the only slot of their key; those with high ids
    /// are the oldest, and stored first.
    async fn claimed(conn: &mut PgConnection, boot: BootId, kind: &str, jobs: usize) -> Vec<JobId> {
        let mut ids: Vec<_> = (0..jobs).map(|_| JobId::new()).collect();
        ids.sort_unstable();
        sqlx::query(
            "with slot as (
               insert into job_slots (key, slot_no, job_id, fence, boot_id) values ('k', 1, $3, 1, $3)
               on conflict do nothing)
             insert into jobs (id, tenant_id, run_at, order_at, created_at, claimed_at, release, timeout_ms,
                               max_attempts, attempt, fence, state, kind, queue, lane, creator_type, args, boot_id,
                               slot_keys, slot_limits)
             select id, $2, now(), now() - n * interval '1 s', now(), now(), 1, 1, 1, 1, 1, 'running', $4, 'test',
                    'test', 'system', '{}', $3, '{k}', '{1}'
             from unnest($1::uuid[]) with ordinality as u(id, n) order by n desc",
        )
        .bind(ids.iter().map(|id| id.0).collect::<Vec<Uuid>>())
        .bind(TenantId::new().0)
        .bind(boot.0)
        .bind(kind)
        .execute(conn)
        .await
        .expect("claimed");
        ids
    }

    async fn database() -> Database {
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        let postgres = Postgres::shared().await;
        postgres.template(&migrations).await.expect("a template").database().await.expect("a database")
    }

    #[tokio::test]
    async fn jobs_that_lack_a_slot_are_locked_in_the_order_of_their_ids() {
        let database = database().await;
        let mut conn = PgConnection::connect(database.url()).await.expect("a connection");
        let mut other = PgConnection::connect(database.url()).await.expect("a connection");
        let boot = BootId::new();
        let jobs = claimed(&mut conn, boot, "test.ordered", 100).await;
        let mut cancelling = other.begin().await.expect("a transaction");
        let lock = "select from jobs where id = any($1) order by id for no key update nowait";
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
        sqlx::query(lock).bind(&ids[..1]).execute(&mut *cancelling).await.expect("the first is locked");
        let taking = tokio::spawn(async move {
            let fences = vec![1; jobs.len()];
            take_slots(&mut conn, boot, &jobs, &fences).await
        });
        eventually(Duration::from_secs(10), "it waits for the first", async || {
            let waiting: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
            )
            .fetch_one(&mut *cancelling)
            .await
            .expect("read");
            (waiting > 0).then_some(())
        })
        .await;
        sqlx::query(lock).bind(&ids).execute(&mut *cancelling).await.expect("none of the others is locked");
        cancelling.rollback().await.expect("unlocked");
        let taken = taking.await.expect("no panic").expect("taken");
        assert!(taken.granted.is_empty());
        assert_eq!(taken.notices.events.len(), ids.len());
    }

    #[tokio::test]
    async fn a_cancel_that_ends_for_want_of_a_slot_is_told_and_counted() {
        let metrics = telemetry::metrics();
        let database = database().await;
        let mut conn = PgConnection::connect(database.url()).await.expect("a connection");
        let boot = BootId::new();
        let jobs = claimed(&mut conn, boot, "test.unwanted", 1).await;
        sqlx::query("update jobs set cancel_requested_at = now()")
            .execute(&mut conn)
            .await
            .expect("cancelled");
        let taken = take_slots(&mut conn, boot, &jobs, &[1]).await.expect("taken");
        assert!(taken.granted.is_empty());
        let told: Vec<_> = taken.notices.events.iter().map(|event| event.id).collect();
        assert_eq!(told, [jobs[0].0]);
        let state: String =
            sqlx::query_scalar("select state::text from jobs").fetch_one(&mut conn).await.expect("read");
        assert_eq!(state, "cancelled");
        let counted = r#"streamspace_jobs_total{kind="test.unwanted",outcome="cancelled"} 1"#;
        assert!(metrics.render().lines().any(|line| line == counted));
    }
}
