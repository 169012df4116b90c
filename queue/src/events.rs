//! Events that jobs park for.
//!
//! A job looks, finds that what it needs has not happened, and parks. Were the event to commit in
//! between, the job would sleep through it. So an event leaves a row with its transaction's id, and
//! a parking job locks that row: either the event comes later and finds the job parked, or it came
//! first and its transaction is not visible in the snapshot of the job's claim, so the job goes
//! back into its queue at once.

use sqlx::PgConnection;
use streamspace_common::{JobId, TenantId};

use crate::{
    job::stored_key,
    notice::{Lane, Notices},
};

/// Marks the events and wakes who is parked for them.
pub(crate) async fn wake(
    conn: &mut PgConnection,
    tenant: TenantId,
    events: &[String],
) -> sqlx::Result<Notices> {
    let keys: Vec<_> = events.iter().cloned().map(stored_key).collect();
    sqlx::query!(
        "insert into job_events (tenant_id, key, xid, at)
         select $1, key, pg_current_xact_id(), queue.now() from unnest($2::text[]) as e(key) order by key
         on conflict (tenant_id, key) do update set xid = excluded.xid, at = excluded.at",
        tenant.0,
        &keys,
    )
    .execute(&mut *conn)
    .await?;
    // A new statement, so a new snapshot: it sees whoever parked while we waited for the mark.
    let woken = sqlx::query!(
        r#"with parked as materialized (
             select id from jobs where tenant_id = $1 and state = 'parked' and park_key = any($2)
             order by id for no key update)
           update jobs set state = 'queued', park_key = null, row_version = row_version + 1,
                run_at = queue.now(), order_at = queue.now() - priority * interval '1 minute'
           where id = any (array (select id from parked))
           returning id as "id: JobId", lane, order_at, row_version"#,
        tenant.0,
        &keys,
    )
    .fetch_all(conn)
    .await?;
    let mut notices = Notices::default();
    for job in woken {
        notices.claimable(Lane { name: job.lane, tenant }, job.order_at.to_jiff());
        notices.changed(job.id, job.row_version);
    }
    Ok(notices)
}

/// What a parking attempt asks for.
pub(crate) struct Park<'a> {
    pub job: JobId,
    pub fence: i64,
    pub tenant: TenantId,
    pub event: &'a str,
    pub timeout_ms: i64,
    /// The snapshot of the job's claim.
    pub snapshot: &'a str,
}

/// Parks the job, or queues it again if the event came after its claim. `None`: it was not ours.
pub(crate) async fn park(conn: &mut PgConnection, park: &Park<'_>) -> sqlx::Result<Option<Notices>> {
    let key = stored_key(park.event.to_owned());
    // Locks the job's row, as every transaction does that changes a job and then tells of an event;
    // then the event's until the commit, making it if the event never happened.
    let came = sqlx::query_scalar!(
        r#"with held as materialized (select from jobs where id = $4 and fence = $5 for no key update)
           insert into job_events as e (tenant_id, key, xid, at) select $1, $2, '3'::xid8, queue.now() from held
           on conflict (tenant_id, key) do update set at = e.at
           returning not pg_visible_in_snapshot(e.xid, $3::text::pg_snapshot) as "came!""#,
        park.tenant.0,
        key,
        park.snapshot,
        park.job.0,
        park.fence,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(came) = came else { return Ok(None) };
    let parked = sqlx::query!(
        r#"with parked as (
             update jobs set
                    state = (case when cancel_requested_at is not null then 'cancelled'
                                  when $3 then 'queued' else 'parked' end)::job_state,
                    finished_at = case when cancel_requested_at is not null then queue.now() end,
                    cancel_stopped_at = case when cancel_requested_at is not null then queue.now() end,
                    park_key = case when $3 then null else $4 end, lane = queue, unknown_since = null,
                    run_at = case when $3 then queue.now() else queue.now() + $5::bigint * interval '1 ms' end,
                    order_at = queue.now() - priority * interval '1 minute',
                    attempt = attempt - 1, fence = fence + 1, row_version = row_version + 1, boot_id = null
             where id = $1 and fence = $2
             returning id, unique_mode, state, lane, order_at, run_at, row_version),
           keys as (
             delete from job_keys where (tenant_id, kind, key) in (
               select k.tenant_id, k.kind, k.key from parked p join job_keys k on k.job_id = p.id
               where p.state = 'cancelled' and p.unique_mode in (1, 2) for update of k skip locked))
           select state as "state: crate::model::State", lane, order_at, run_at, row_version from parked"#,
        park.job.0,
        park.fence,
        came,
        key,
        park.timeout_ms,
    )
    .fetch_optional(conn)
    .await?;
    Ok(parked.map(|job| {
        let mut notices = Notices::default();
        match job.state {
            crate::model::State::Queued => {
                notices.claimable(Lane { name: job.lane, tenant: park.tenant }, job.order_at.to_jiff());
            }
            crate::model::State::Parked => notices.due(job.run_at.to_jiff()),
            _ => {}
        }
        notices.changed(park.job, job.row_version);
        notices
    }))
}
