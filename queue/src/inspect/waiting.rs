//! "Why is it waiting?"

use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::{JobId, PLATFORM};

use super::{Scope, shown_key};
use crate::model::State;

#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    pub state: State,
    /// What stands in its way; empty when it is only not its turn yet.
    pub reasons: Vec<Reason>,
    /// Set for a job that could be claimed.
    pub position: Option<Position>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Nothing of its tenant starts.
    TenantSuspended,
    /// For everyone, or for the jobs of its tenant.
    QueuePaused {
        everyone: bool,
    },
    /// All slots of the key are taken; by these jobs, as far as the reader may see them.
    ConcurrencyKey {
        key: String,
        held_by: Vec<JobId>,
    },
    /// The queue starts no more than so many in a time.
    RateLimit {
        count: i32,
        period_ms: i64,
        everyone: bool,
    },
    /// As many run in the queue as may.
    MaxRunning {
        limit: i32,
        everyone: bool,
    },
    RunAt {
        at: Timestamp,
    },
    Event {
        key: String,
        until: Timestamp,
    },
    /// No live worker that takes new jobs serves the queue.
    NoWorker,
    /// Those that do serve it know nothing of its kind, or only older versions.
    UnknownKind,
}

/// A place in the lane that a tenant has in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// 1 is next; exact unless `or_more`.
    pub place: i64,
    pub or_more: bool,
    /// Tenants that take turns in this queue, this one included; counted to 1,000.
    pub lanes: i64,
}

const COUNTED: i64 = 1000;

/// `None`: there is no such job for this reader, or it waits for nothing.
pub async fn waiting(conn: &mut PgConnection, scope: Scope, id: JobId) -> sqlx::Result<Option<Waiting>> {
    let (tenant, user, creator) = scope.columns();
    let job = sqlx::query!(
        r#"select tenant_id, state as "state: State", kind, version, queue, lane, run_at, order_at, blocked_on, park_key
           from jobs where id = $1 and ($2::uuid is null or tenant_id = $2)
             and ($3::uuid is null or user_id = $3) and ($4::uuid is null or creator_id = $4)"#,
        id.0,
        tenant,
        user,
        creator,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(job) = job.filter(|job| job.state.is_waiting()) else { return Ok(None) };

    let mut reasons = Vec::new();
    match job.state {
        State::Scheduled | State::Retrying | State::Snoozed => {
            reasons.push(Reason::RunAt { at: job.run_at.to_jiff() });
        }
        State::Parked => {
            reasons.push(Reason::Event { key: job.park_key.unwrap_or_default(), until: job.run_at.to_jiff() })
        }
        State::Blocked => {
            let key = job.blocked_on.unwrap_or_default();
            let held_by = holders(conn, scope, &key).await?;
            reasons.push(Reason::ConcurrencyKey { key: shown_key(&key), held_by });
        }
        _ => {}
    }
    if is_suspended(conn, job.tenant_id).await? {
        reasons.push(Reason::TenantSuspended);
    }
    limits(conn, &job.queue, job.tenant_id, &mut reasons).await?;
    let version = format!("{}@{}", job.kind, job.version);
    workers(conn, &job.queue, &version, &mut reasons).await?;

    let position = if job.state == State::Queued {
        let ahead = sqlx::query_scalar!(
            r#"select count(*) as "n!" from (
                 select from jobs where state = 'queued' and lane = $1 and tenant_id = $2 and (order_at, id) < ($3, $4)
                 limit $5) ahead"#,
            job.lane,
            job.tenant_id,
            job.order_at as jiff_sqlx::Timestamp,
            id.0,
            COUNTED,
        )
        .fetch_one(&mut *conn)
        .await?;
        let lanes = lanes(conn, &job.lane, job.tenant_id).await?;
        Some(Position { place: (ahead + 1).min(COUNTED), or_more: ahead >= COUNTED, lanes })
    } else {
        None
    };
    Ok(Some(Waiting { state: job.state.public(), reasons, position }))
}

async fn holders(conn: &mut PgConnection, scope: Scope, key: &str) -> sqlx::Result<Vec<JobId>> {
    let (tenant, user, creator) = scope.columns();
    sqlx::query_scalar!(
        r#"select s.job_id as "id: JobId" from job_slots s join jobs j on j.id = s.job_id
           where s.key = $1 and ($2::uuid is null or j.tenant_id = $2)
             and ($3::uuid is null or j.user_id = $3) and ($4::uuid is null or j.creator_id = $4)
           order by s.slot_no limit 20"#,
        key,
        tenant,
        user,
        creator,
    )
    .fetch_all(conn)
    .await
}

async fn is_suspended(conn: &mut PgConnection, tenant: uuid::Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from tenants where id = $1 and not active) as "is!""#,
        tenant
    )
    .fetch_one(conn)
    .await
}

/// Pauses and limits that hold for the job. A limit is named when it is met now.
async fn limits(
    conn: &mut PgConnection,
    queue: &str,
    tenant: uuid::Uuid,
    reasons: &mut Vec<Reason>,
) -> sqlx::Result<()> {
    let controls = sqlx::query!(
        r#"select c.tenant_id = $3 as "everyone!", c.paused_at is not null as "paused!", c.max_running,
                  c.rate_count, c.rate_period_ms,
                  coalesce(c.tokens + extract(epoch from queue.now() - c.refilled_at)::float8
                             * c.rate_count * 1000 / c.rate_period_ms < 1, false) as "rate_met!",
                  case when c.max_running is null then false else
                    (select count(*) from jobs j where j.state = 'running' and j.queue = $1
                       and (c.tenant_id = $3 or j.tenant_id = c.tenant_id)) >= c.max_running end as "full!"
           from queue_controls c where c.queue = $1 and c.tenant_id in ($2, $3) order by 1 desc"#,
        queue,
        tenant,
        PLATFORM.0,
    )
    .fetch_all(conn)
    .await?;
    for control in controls {
        let everyone = control.everyone;
        if control.paused {
            reasons.push(Reason::QueuePaused { everyone });
        }
        if let (true, Some(limit)) = (control.full, control.max_running) {
            reasons.push(Reason::MaxRunning { limit, everyone });
        }
        if let (true, Some(count), Some(period_ms)) =
            (control.rate_met, control.rate_count, control.rate_period_ms)
        {
            reasons.push(Reason::RateLimit { count, period_ms, everyone });
        }
    }
    Ok(())
}

async fn workers(
    conn: &mut PgConnection,
    queue: &str,
    version: &str,
    reasons: &mut Vec<Reason>,
) -> sqlx::Result<()> {
    let found = sqlx::query!(
        r#"select count(*) as "serving!", count(*) filter (where $2 = any(kinds)) as "knowing!" from workers
           where not draining and (queues is null or $1 = any(queues))"#,
        queue,
        version,
    )
    .fetch_one(conn)
    .await?;
    match (found.serving, found.knowing) {
        (0, _) => reasons.push(Reason::NoWorker),
        (_, 0) => reasons.push(Reason::UnknownKind),
        _ => {}
    }
    Ok(())
}

/// How many tenants take turns in a lane's queue, a given one whether or not it does: one probe of the claim
/// index for each with claimable jobs.
async fn lanes(conn: &mut PgConnection, lane: &str, tenant: uuid::Uuid) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"with recursive waiting as (
             (select tenant_id from jobs where state = 'queued' and lane = $1 order by tenant_id limit 1)
             union all
             select n.tenant_id from waiting w
             cross join lateral (
               select j.tenant_id from jobs j where j.state = 'queued' and j.lane = $1 and j.tenant_id > w.tenant_id
               order by j.tenant_id limit 1) n)
           select count(*) as "n!" from (
             select from waiting
             where tenant_id = $3 or tenant_id <> all(array(select id from tenants where not active))
             limit $2) counted"#,
        lane,
        COUNTED,
        tenant,
    )
    .fetch_one(conn)
    .await
}
