//! Jobs of kinds, or of versions of their payload, that this worker does not know: a newer release
//! enqueued them, and its workers are still to come.
//!
//! Such a job is handed back into a lane that only workers look into who know it. It fails once no
//! hope is left: when it has waited for `unknown_after`, or when no live worker is older than it, so
//! that none is left to be replaced by one that knows it. Workers of other queues are no hope.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::PgConnection;
use streamspace_common::JobId;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Engine, Live, acknowledge::Ack, execute::Run, sweep::Found};
use crate::{claim::Claimed, db::ANSWER, notice::Notices, settle::Verdict};

/// So long the hope for one job is good for others like it: there may be many. That there is none is asked
/// for each, since it ends them.
const KEPT: Duration = Duration::from_secs(1);

/// For which kinds, queues and releases there was hope, and when.
pub(super) type Hopes = Mutex<HashMap<(String, String, i64), Instant>>;

impl Engine {
    /// A kind that this worker does not know: the job waits for one that does, or fails when none
    /// will come.
    pub(super) async fn unknown(&self, claimed: Claimed, live: &Arc<Live>) {
        let kind = format!("{}@{}", claimed.kind, claimed.version);
        let run = Run { start_us: 0, started: std::time::Instant::now(), live: live.clone(), claimed };
        let hopeless = match self.nobody_will_know(&kind, &run.claimed).await {
            Ok(hopeless) => hopeless,
            // Not knowing whether others know it is no reason to fail it.
            Err(error) => {
                warn!(%error, "could not ask which workers know {kind}");
                false
            }
        };
        let verdict = if hopeless {
            Verdict::Failed
        } else {
            info!(job.id = %run.claimed.id, "handed back: {kind} is not known to this release");
            Verdict::Unknown
        };
        let error = (verdict == Verdict::Failed)
            .then(|| run.error("unknown_kind", &format!("no worker knows the kind {kind}")));
        let end = run.end(verdict, error);
        self.ended(&run.claimed, run.started.elapsed());
        self.settle(Ack::End(end));
    }

    /// Whether every live worker of the queue is at least as new as the job, and none knows its kind.
    async fn nobody_will_know(&self, kind: &str, job: &Claimed) -> sqlx::Result<bool> {
        let of = (kind.to_owned(), job.queue.clone(), job.release);
        let hoped = self.hopes.lock().expect("no panic while it was held").get(&of).copied();
        if hoped.is_some_and(|at| at.elapsed() < KEPT) {
            return Ok(false);
        }
        let hope = async |conn: &mut PgConnection| {
            sqlx::query_scalar!(
                r#"select exists (select from workers where (release < $1 or $2 = any(kinds))
                                  and (queues is null or $3 = any(queues))) as "hope!""#,
                job.release,
                kind,
                job.queue,
            )
            .fetch_one(conn)
            .await
        };
        let hope = self.queue.db().read_within(ANSWER, hope).await?;
        if hope {
            let mut hopes = self.hopes.lock().expect("no panic while it was held");
            hopes.retain(|_, at| at.elapsed() < KEPT);
            hopes.insert(of, Instant::now());
        }
        Ok(!hope)
    }
}

/// Jobs of one look.
const MOST: usize = 500;

/// Fails jobs in the lanes of unknown kinds for which there is no hope any more: nobody claims them, so
/// nobody else would.
///
/// Whether somebody knows a kind is asked once for its lane, of which there are few, whatever waits there:
/// found by a loose scan of the claim index. A kind that is known waits for its turn only, and be it long.
pub(super) async fn give_up(conn: &mut PgConnection, unknown_after: Duration) -> sqlx::Result<Found> {
    let rows = sqlx::query!(
        r#"with recursive lanes as (
             (select lane from jobs
              where state = 'queued' and (select min(unknown_since) from jobs where state = 'queued') is not null
              order by lane limit 1)
             union all
             select n.lane from lanes l
             cross join lateral (
               select j.lane from jobs j where j.state = 'queued' and j.lane > l.lane order by j.lane limit 1) n),
           unknown as materialized (
             select lane, (select min(w.release) from workers w where w.queues is null or q.queue = any(w.queues)) as oldest
             from lanes cross join lateral (select split_part(lane, '/', 1) as queue, split_part(lane, '/', 2) as kind) q
             where q.kind <> ''
               and not exists (select from workers w where q.kind = any(w.kinds)
                                 and (w.queues is null or q.queue = any(w.queues)))),
           hopeless as materialized (
             select j.id from unknown u
             cross join lateral (
               select id from jobs
               where state = 'queued' and lane = u.lane
                 and (unknown_since < queue.now() - make_interval(secs => $1)
                      or release <= u.oldest)
               order by tenant_id, order_at, id limit $2 for update skip locked) j
             limit $2),
           failed as (
             update jobs j set state = 'failed', finished_at = queue.now(), fence = j.fence + 1,
                    row_version = j.row_version + 1,
                    errors = queue.append_error(j.errors, jsonb_build_object('attempt', j.attempt,
                               'kind', 'unknown_kind',
                               'message', 'no worker knows the kind ' || j.kind || '@' || j.version))
             where j.id = any(array(select id from hopeless))
             returning j.id, j.kind, j.row_version, j.unique_mode),
           keys as (
             delete from job_keys where (tenant_id, kind, key) in (
               select k.tenant_id, k.kind, k.key from failed f join job_keys k on k.job_id = f.id
               where f.unique_mode in (1, 2) for update of k skip locked))
           select id as "id: JobId", kind, row_version from failed"#,
        unknown_after.as_secs_f64(),
        MOST as i64,
    )
    .fetch_all(conn)
    .await?;
    let full = rows.len() == MOST;
    let mut notices = Notices::default();
    for row in rows {
        warn!(job.id = %row.id, "failed: no worker knows the kind {}", row.kind);
        metrics::counter!("streamspace_jobs_total", "kind" => row.kind, "outcome" => "failed").increment(1);
        notices.changed(row.id, row.row_version);
    }
    Ok(Found { notices, full })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use streamspace_common::TenantId;
    use streamspace_testkit::{Postgres, eventually};

    use super::*;
    use crate::WorkerOptions;

    #[tokio::test]
    async fn who_knows_a_kind_is_asked_once_a_second() {
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        let postgres = Postgres::shared().await;
        let database =
            postgres.template(&migrations).await.expect("a template").database().await.expect("a database");
        let engine = Engine::bare_on(database.url(), WorkerOptions::default());
        let execute = async |sql: &'static str| {
            sqlx::query(sql).execute(engine.queue.db().pool()).await.expect(sql);
        };
        execute(
            "insert into workers (boot_id, host, pid, version, release, kinds, concurrency, started_at, beat_at)
             values (gen_random_uuid(), 'other', 1, '1', 1, '{new@1}', 1, now(), now())",
        )
        .await;
        let job = Claimed { release: 1, ..Claimed::of(TenantId::new()) };
        let hopeless = async |kind: &str| engine.nobody_will_know(kind, &job).await.expect("an answer");
        assert!(!hopeless("new@1").await);
        execute("delete from workers").await;
        assert!(!hopeless("new@1").await, "as a moment ago");
        assert!(hopeless("new@2").await, "there was none for another");
        eventually(KEPT * 3, "it is asked again", async || hopeless("new@1").await.then_some(())).await;
    }
}
