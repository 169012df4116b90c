//! Claims: rows of named lanes, from remembered positions, each by one worker only.

use jiff::Timestamp;
use serde_json::{Value, value::RawValue};
use sqlx::{PgConnection, types::Json};
use streamspace_common::{ApiKeyId, BootId, JobId, TenantId, UserId};

use crate::{lanes::Ask, notice::Lane};

/// A job that is ours now.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub id: JobId,
    pub tenant: TenantId,
    pub lane: Lane,
    pub order_at: Timestamp,
    pub kind: String,
    pub version: i16,
    pub queue: String,
    pub fence: i64,
    pub attempt: i32,
    pub max_attempts: i32,
    pub timeout_ms: i64,
    pub release: i64,
    pub args: Box<RawValue>,
    pub checkpoint: Option<Value>,
    pub keyed: bool,
    /// It was parked, and no event woke it.
    pub timed_out_waiting: bool,
    /// Somebody asked it to stop before it was claimed again.
    pub cancelling: bool,
    pub user: Option<UserId>,
    pub key: Option<ApiKeyId>,
    pub request_id: Option<String>,
    pub traceparent: Option<String>,
    /// From when it could have been claimed to the claim.
    pub waited_ms: i64,
    pub row_version: i64,
    /// What was visible at the claim: parking compares with it.
    pub snapshot: Option<String>,
}

/// Claims at most what each ask allows. Rows that another claim is taking are skipped. A worker that
/// was taken for dead gets nothing: what it claimed would be taken from it, at the cost of an attempt.
///
/// The rows are updated by `any (array (…))`, one probe of the primary key each. Joined instead, the
/// planner expects a tenth of the lane from a `limit` that it does not know, and reads the whole
/// table for it: ten times the cost of a claim with 60,000 rows.
pub(crate) async fn claim(conn: &mut PgConnection, boot: BootId, asks: &[Ask]) -> sqlx::Result<Vec<Claimed>> {
    let lanes: Vec<String> = asks.iter().map(|ask| ask.lane.name.clone()).collect();
    let tenants: Vec<_> = asks.iter().map(|ask| ask.lane.tenant.0).collect();
    let at: Vec<jiff_sqlx::Timestamp> = asks.iter().map(|ask| ask.from.at.into()).collect();
    let ids: Vec<_> = asks.iter().map(|ask| ask.from.id).collect();
    let most: Vec<i32> = asks.iter().map(|ask| i32::try_from(ask.most).unwrap_or(i32::MAX)).collect();
    let rows = sqlx::query!(
        r#"with picked as materialized (
             select j.id from unnest($2::text[], $3::uuid[], $4::timestamptz[], $5::uuid[], $6::int[])
                         as l(lane, tenant_id, at, id, most)
             cross join lateral (
               select id from jobs
               where state = 'queued' and lane = l.lane and tenant_id = l.tenant_id
                 and (order_at, id) >= (l.at, l.id)
               order by order_at, id limit l.most for update skip locked) j
             where exists (select from workers where boot_id = $1))
           update jobs j set state = 'running', attempt = j.attempt + 1, fence = j.fence + 1,
                  row_version = j.row_version + 1, boot_id = $1, claimed_at = queue.now(), started_at = queue.now()
           where j.id = any (array (select id from picked))
           returning j.id as "id: JobId", j.tenant_id as "tenant: TenantId", j.lane, j.order_at, j.kind, j.version,
                     j.queue, j.fence, j.attempt, j.max_attempts, j.timeout_ms, j.release,
                     j.args as "args: Json<Box<RawValue>>", j.checkpoint, j.slot_keys is not null as "keyed!",
                     j.park_key is not null as "timed_out_waiting!",
                     j.cancel_requested_at is not null as "cancelling!",
                     j.user_id as "user: UserId", j.key_id as "key: ApiKeyId", j.request_id, j.traceparent,
                     (date_part('epoch', queue.now() - j.run_at) * 1000)::bigint as "waited_ms!", j.row_version,
                     (select pg_current_snapshot()::text) as snapshot"#,
        boot.0,
        &lanes,
        &tenants,
        &at as &[jiff_sqlx::Timestamp],
        &ids,
        &most,
    )
    .fetch_all(conn)
    .await?;
    let mut claimed: Vec<Claimed> = rows
        .into_iter()
        .map(|row| Claimed {
            id: row.id,
            tenant: row.tenant,
            lane: Lane { name: row.lane, tenant: row.tenant },
            order_at: row.order_at.to_jiff(),
            kind: row.kind,
            version: row.version,
            queue: row.queue,
            fence: row.fence,
            attempt: row.attempt,
            max_attempts: row.max_attempts,
            timeout_ms: row.timeout_ms,
            release: row.release,
            args: row.args.0,
            checkpoint: row.checkpoint,
            keyed: row.keyed,
            timed_out_waiting: row.timed_out_waiting,
            cancelling: row.cancelling,
            user: row.user,
            key: row.key,
            request_id: row.request_id,
            traceparent: row.traceparent,
            waited_ms: row.waited_ms,
            row_version: row.row_version,
            snapshot: row.snapshot,
        })
        .collect();
    // An update returns its rows as it met them; they start in the order of their lanes.
    claimed.sort_unstable_by_key(|job| (job.order_at, job.id));
    Ok(claimed)
}

#[cfg(test)]
impl Claimed {
    /// Of the queue `q`.
    pub(crate) fn of(tenant: TenantId) -> Self {
        Self {
            id: JobId::new(),
            tenant,
            lane: Lane { name: "q".into(), tenant },
            order_at: Timestamp::UNIX_EPOCH,
            kind: "test".into(),
            version: 1,
            queue: "q".into(),
            fence: 1,
            attempt: 1,
            max_attempts: 1,
            timeout_ms: 1000,
            release: 0,
            args: RawValue::NULL.to_owned(),
            checkpoint: None,
            keyed: false,
            timed_out_waiting: false,
            cancelling: false,
            user: None,
            key: None,
            request_id: None,
            traceparent: None,
            waited_ms: 0,
            row_version: 1,
            snapshot: None,
        }
    }
}
