//! What suspending and deleting a tenant means to its jobs.
//!
//! The jobs and schedules of a suspended tenant stand still: workers leave its lanes alone and schedulers
//! its schedules, whoever enqueues what. What runs at that moment ends by itself. A tenant's rows are
//! deleted only when nothing of it runs.

use sqlx::PgConnection;
use streamspace_common::TenantId;

use crate::{control, inspect::Scope, tx::Tx};

/// Tells workers and schedulers that a tenant was suspended or goes on. Without it they notice within a
/// second.
pub async fn changed(tx: &mut Tx) -> sqlx::Result<()> {
    let now = tx.now().await?;
    tx.notices().controls = true;
    // What became due meanwhile.
    tx.notices().due(now);
    Ok(())
}

/// Jobs that are told to stop in one go.
const STOPPED: i64 = 500;

/// Tells running jobs of a tenant to stop; answers how many still run.
pub async fn stop(tx: &mut Tx, tenant: TenantId) -> sqlx::Result<usize> {
    let running = sqlx::query_scalar!(
        "select id from jobs where state = 'running' and tenant_id = $1 order by id limit $2",
        tenant.0,
        STOPPED,
    )
    .fetch_all(tx.conn().await?)
    .await?;
    control::cancel_these(tx, Scope::Tenant(tenant), &running).await?;
    Ok(running.len())
}

/// Whether it has a job; one that runs is not [erased](erase).
pub async fn has_jobs(conn: &mut PgConnection, tenant: TenantId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select exists (select from jobs where tenant_id = $1) as "has!""#, tenant.0)
        .fetch_one(conn)
        .await
}

/// Deletes what the engine has of a tenant, but for running jobs: so many rows of each table at most.
/// Answers how many; none means that it is done.
///
/// The ledger has no index by tenant: what schedules that were deleted before have left in it goes with
/// its month.
pub async fn erase(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    // What hangs on a row goes before it, so that none takes more along than fits.
    let first = sqlx::query!(
        r#"with fires as (
             delete from job_fires where (schedule_id, fire_at) in (
               select f.schedule_id, f.fire_at from schedules s join job_fires f on f.schedule_id = s.id
               where s.tenant_id = $1 limit $2) returning 1),
           items as (
             delete from job_batch_items where (batch_id, item_no) in (
               select i.batch_id, i.item_no from job_batches b join job_batch_items i on i.batch_id = b.job_id
               where b.tenant_id = $1 limit $2) returning 1)
           select (select count(*) from fires) + (select count(*) from items) as "gone!""#,
        tenant.0,
        most,
    )
    .fetch_one(&mut *conn)
    .await?;
    if first.gone > 0 {
        return Ok(first.gone.unsigned_abs());
    }
    let rest = sqlx::query!(
        r#"with jobs_gone as (
             delete from jobs where id = any(array(
               select id from jobs where tenant_id = $1 and state <> 'running' order by id limit $2
               for update skip locked)) returning id),
           steps as (delete from job_steps s using jobs_gone j where s.job_id = j.id),
           batches as (
             delete from job_batches where job_id = any(array(
               select job_id from job_batches where tenant_id = $1 limit $2)) returning 1),
           schedules_gone as (
             delete from schedules where id = any(array(
               select id from schedules where tenant_id = $1 limit $2)) returning 1),
           keys as (
             delete from job_keys where (tenant_id, kind, key) in (
               select tenant_id, kind, key from job_keys where tenant_id = $1 limit $2) returning 1),
           events as (
             delete from job_events where (tenant_id, key) in (
               select tenant_id, key from job_events where tenant_id = $1 limit $2) returning 1),
           controls as (delete from queue_controls where tenant_id = $1 returning 1),
           depths as (delete from queue_depths where tenant_id = $1)
           select (select count(*) from jobs_gone) + (select count(*) from batches)
                  + (select count(*) from schedules_gone) + (select count(*) from keys)
                  + (select count(*) from events) + (select count(*) from controls) as "gone!""#,
        tenant.0,
        most,
    )
    .fetch_one(conn)
    .await?;
    Ok(rest.gone.unsigned_abs())
}
