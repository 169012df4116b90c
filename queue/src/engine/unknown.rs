//! Jobs of kinds, or of versions of their payload, that this worker does not know: a newer release
//! enqueued them, and its workers are still to come.
//!
//! Such a job is handed back into a lane that only workers look into who know it. It fails once no
//! hope is left: when it has waited for `unknown_after`, or when no live worker is older than it, so
//! that none is left to be replaced by one that knows it.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use streamspace_common::JobId;
use tracing::{info, warn};

use super::{Engine, Live, acknowledge::Ack, execute::Run};
use crate::{claim::Claimed, db::ANSWER, notice::Notices, settle::Verdict};

impl Engine {
    /// A kind that this worker does not know: the job waits for one that does, or fails when none
    /// will come.
    pub(super) async fn unknown(&self, claimed: Claimed, live: &Arc<Live>) {
        let kind = format!("{}@{}", claimed.kind, claimed.version);
        let run = Run { start_us: 0, started: std::time::Instant::now(), live: live.clone(), claimed };
        let hopeless = match self.nobody_will_know(&kind, run.claimed.release).await {
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

    /// Whether every live worker is at least as new as the job, and none knows its kind.
    async fn nobody_will_know(&self, kind: &str, release: i64) -> sqlx::Result<bool> {
        let hope = async |conn: &mut PgConnection| {
            sqlx::query_scalar!(
                r#"select exists (select from workers where release < $1 or $2 = any(kinds)) as "hope!""#,
                release,
                kind,
            )
            .fetch_one(conn)
            .await
        };
        Ok(!self.queue.db().read_within(ANSWER, hope).await?)
    }

    /// Fails jobs in the lanes of unknown kinds for which there is no hope any more: nobody claims
    /// them, so nobody else would.
    pub(super) async fn give_up_unknown(&self) -> sqlx::Result<()> {
        let unknown_after = self.options.unknown_after;
        let failed =
            self.queue.db().direct_within(ANSWER, async |conn| give_up(conn, unknown_after).await).await?;
        self.queue.tell(failed);
        Ok(())
    }
}

/// Whether somebody knows a kind is asked once for its lane, of which there are few, whatever waits there:
/// found by a loose scan of the claim index. A kind that is known waits for its turn only, and be it long.
async fn give_up(conn: &mut PgConnection, unknown_after: Duration) -> sqlx::Result<Notices> {
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
             select lane from lanes
             where strpos(lane, '/') > 0
               and not exists (select from workers w where split_part(lanes.lane, '/', 2) = any(w.kinds))),
           hopeless as materialized (
             select j.id from unknown u
             cross join lateral (
               select id from jobs
               where state = 'queued' and lane = u.lane
                 and (unknown_since < queue.now() - make_interval(secs => $1)
                      or release <= (select min(w.release) from workers w))
               order by tenant_id, order_at, id limit 500 for update skip locked) j
             limit 500),
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
    )
    .fetch_all(conn)
    .await?;
    let mut notices = Notices::default();
    for row in rows {
        warn!(job.id = %row.id, "failed: no worker knows the kind {}", row.kind);
        metrics::counter!("streamspace_jobs_total", "kind" => row.kind, "outcome" => "failed").increment(1);
        notices.changed(row.id, row.row_version);
    }
    Ok(notices)
}
