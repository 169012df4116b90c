//! Counts of jobs. What waits and runs is counted by the scheduler ([`crate::depth`]); of what is
//! over only the newest are looked at, since a count of all would cost more the longer the
//! installation lives.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::Scope;
use crate::model::State;

/// How many of the newest jobs are looked at, and how far failed ones are counted.
const LOOKED_AT: i64 = 10_000;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    pub queues: Vec<QueueStats>,
    pub finished: Finished,
    /// Failed jobs that are kept, counted to 10,000.
    pub failed: i64,
    pub failed_is_more: bool,
}

/// What waits and runs in a queue, as last counted.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueStats {
    pub queue: String,
    pub queued: i64,
    /// Scheduled, retrying or snoozed: waits for its time.
    pub delayed: i64,
    /// Part of what readers see as `queued`: waits for a concurrency key.
    pub blocked: i64,
    pub parked: i64,
    pub running: i64,
    /// Of the one that is next; with priorities another may have waited longer.
    pub oldest_age_seconds: f64,
    pub counted_at: Timestamp,
}

/// How the newest jobs ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finished {
    /// Of so many jobs…
    pub of: i64,
    /// …made since then.
    pub since: Option<Timestamp>,
    pub succeeded: i64,
    pub failed: i64,
    pub cancelled: i64,
}

pub async fn stats(conn: &mut PgConnection, scope: Scope) -> sqlx::Result<Stats> {
    let queues = queue_stats(conn, scope).await?;
    let finished = finished(conn, scope).await?;
    let failed =
        match scope.tenant() {
            Some(tenant) => {
                sqlx::query_scalar!(
                    r#"select count(*) as "n!" from (
                     select from jobs where tenant_id = $1 and state = 'failed' limit $2) capped"#,
                    tenant.0,
                    LOOKED_AT + 1,
                )
                .fetch_one(conn)
                .await?
            }
            None => sqlx::query_scalar!(
                r#"select count(*) as "n!" from (select from jobs where state = 'failed' limit $1) capped"#,
                LOOKED_AT + 1,
            )
            .fetch_one(conn)
            .await?,
        };
    Ok(Stats { queues, finished, failed: failed.min(LOOKED_AT), failed_is_more: failed > LOOKED_AT })
}

/// The counted queues of a scope, by name.
pub(crate) async fn queue_stats(conn: &mut PgConnection, scope: Scope) -> sqlx::Result<Vec<QueueStats>> {
    let rows = sqlx::query!(
        r#"select queue, sum(waiting)::bigint as "queued!", sum(delayed)::bigint as "delayed!",
                  sum(blocked)::bigint as "blocked!", sum(parked)::bigint as "parked!",
                  sum(running)::bigint as "running!",
                  coalesce(greatest(extract(epoch from queue.now() - min(oldest_at)), 0), 0)::float8 as "oldest!",
                  max(counted_at) as "counted_at!"
           from queue_depths where $1::uuid is null or tenant_id = $1 group by queue order by queue"#,
        scope.tenant().map(|tenant| tenant.0),
    )
    .fetch_all(conn)
    .await?;
    let of = rows.into_iter().map(|row| QueueStats {
        queue: row.queue,
        queued: row.queued,
        delayed: row.delayed,
        blocked: row.blocked,
        parked: row.parked,
        running: row.running,
        oldest_age_seconds: row.oldest,
        counted_at: row.counted_at.to_jiff(),
    });
    Ok(of.collect())
}

async fn finished(conn: &mut PgConnection, scope: Scope) -> sqlx::Result<Finished> {
    let rows = match scope.tenant() {
        Some(tenant) => sqlx::query!(
            r#"select state as "state: State", count(*) as "n!", min(created_at) as since
               from (select state, created_at from jobs
                     where (tenant_id, id) >= ($1::uuid, '00000000-0000-0000-0000-000000000000')
                       and (tenant_id, id) <= ($1, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
                     order by tenant_id desc, id desc limit $2) newest
               group by state"#,
            tenant.0,
            LOOKED_AT,
        )
        .fetch_all(conn)
        .await?
        .into_iter()
        .map(|row| (row.state, row.n, row.since))
        .collect::<Vec<_>>(),
        None => sqlx::query!(
            r#"select state as "state: State", count(*) as "n!", min(created_at) as since
               from (select state, created_at from jobs order by id desc limit $1) newest group by state"#,
            LOOKED_AT,
        )
        .fetch_all(conn)
        .await?
        .into_iter()
        .map(|row| (row.state, row.n, row.since))
        .collect(),
    };
    let mut finished = Finished::default();
    for (state, n, since) in rows {
        finished.of += n;
        match state {
            State::Succeeded => finished.succeeded = n,
            State::Failed => finished.failed = n,
            State::Cancelled => finished.cancelled = n,
            _ => {}
        }
        let since = since.map(|since| since.to_jiff());
        finished.since = match (finished.since, since) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    Ok(finished)
}
