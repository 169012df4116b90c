//! What operators do to jobs: cancel, retry, delete; one, or those that a filter matches.
//!
//! Each change locks its rows in the order of their ids, as every statement over many jobs does.

use sqlx::PgConnection;
use streamspace_common::{BootId, Classified, ErrorKind, JobId, TenantId};
use uuid::Uuid;

use crate::{
    inspect::{self, Filter, JobRow, Scope},
    model::State,
    notice::{Lane, Notices},
    tx::Tx,
};

/// Jobs of one step over a filter's.
pub const CHUNK: u32 = 500;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("there is no such job")]
    NotFound,
    #[error("the job is {}; only a failed or cancelled one can be retried", .0.as_str())]
    NotRetryable(State),
    #[error("another job holds its unique key{}", .holder.map(|id| format!(": {id}")).unwrap_or_default())]
    KeyHeld { holder: Option<JobId> },
    #[error("the job is {}; only one that is over can be deleted", .0.as_str())]
    NotOver(State),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for ControlError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound => ErrorKind::NotFound,
            Self::NotRetryable(_) | Self::KeyHeld { .. } | Self::NotOver(_) => ErrorKind::Conflict,
            Self::Db(error) => error.kind(),
        }
    }
}

/// Cancels a job: a waiting one at once; a running one is told to stop, and ends when it has. One
/// that is over stays as it is. Answers the job as it is then.
///
/// Of a batch, what has not begun is cancelled with it.
pub async fn cancel(tx: &mut Tx, scope: Scope, id: JobId) -> Result<JobRow, ControlError> {
    let before = inspect::get(tx.conn().await?, scope, id).await?.ok_or(ControlError::NotFound)?;
    if before.state.is_terminal() {
        return Ok(before);
    }
    if before.batch.is_some() {
        crate::batch::cancel_pending(tx, id).await?;
    }
    cancel_these(tx, scope, &[id.0]).await?;
    cancel_children(tx, id).await?;
    inspect::get(tx.conn().await?, scope, id).await?.ok_or(ControlError::NotFound)
}

/// Whoever may cancel a job may cancel its parts, whoever made those.
async fn cancel_children(tx: &mut Tx, parent: JobId) -> Result<(), ControlError> {
    let children = sqlx::query_scalar!(
        "select id from jobs where parent_id = $1 and state not in ('succeeded', 'failed', 'cancelled') order by id",
        parent.0,
    )
    .fetch_all(tx.conn().await?)
    .await?;
    if !children.is_empty() {
        cancel_these(tx, Scope::Installation, &children).await?;
    }
    Ok(())
}

/// Cancels those of the jobs that are not over; answers how many.
pub(crate) async fn cancel_these(tx: &mut Tx, scope: Scope, ids: &[Uuid]) -> sqlx::Result<u64> {
    let (tenant, user, creator) = scope.columns();
    let rows = sqlx::query!(
        r#"with target as materialized (
             select id from jobs
             where id = any($1) and state not in ('succeeded', 'failed', 'cancelled')
               and ($2::uuid is null or tenant_id = $2) and ($3::uuid is null or user_id = $3)
               and ($4::uuid is null or creator_id = $4)
               and not (state = 'running' and cancel_requested_at is not null)
             order by id for no key update),
           changed as (
             update jobs j set
                    state = (case when j.state = 'running' then 'running' else 'cancelled' end)::job_state,
                    row_version = j.row_version + 1,
                    cancel_requested_at = coalesce(j.cancel_requested_at, queue.now()),
                    fence = case when j.state = 'running' then j.fence else j.fence + 1 end,
                    cancel_stopped_at = case when j.state <> 'running' then queue.now() end,
                    finished_at = case when j.state <> 'running' then queue.now() end,
                    blocked_on = null, unknown_since = null,
                    park_key = case when j.state = 'running' then j.park_key end
             from target t where j.id = t.id
             returning j.id, j.state, j.boot_id, j.unique_mode, j.row_version),
           keys as (
             delete from job_keys where (tenant_id, kind, key) in (
               select k.tenant_id, k.kind, k.key from changed c join job_keys k on k.job_id = c.id
               where c.state = 'cancelled' and c.unique_mode in (1, 2) for update of k skip locked))
           select id as "id: JobId", boot_id as "boot: BootId", state as "state: State", row_version from changed"#,
        ids,
        tenant,
        user,
        creator,
    )
    .fetch_all(tx.conn().await?)
    .await?;
    let notices = tx.notices();
    for row in &rows {
        notices.changed(row.id, row.row_version);
        if let (State::Running, Some(boot)) = (row.state, row.boot) {
            notices.cancel.push((boot, row.id));
        }
    }
    Ok(rows.len() as u64)
}

/// Queues a failed or cancelled job again, with all its attempts. Its error history stays. A batch
/// goes on with the items that were not begun.
pub async fn retry(tx: &mut Tx, scope: Scope, id: JobId) -> Result<JobRow, ControlError> {
    let before = inspect::get(tx.conn().await?, scope, id).await?.ok_or(ControlError::NotFound)?;
    if !before.state.may_become(State::Queued) || !before.state.is_terminal() {
        return Err(ControlError::NotRetryable(before.state));
    }
    if retry_these(tx, scope, &[id.0]).await? == 0 {
        let now = inspect::get(tx.conn().await?, scope, id).await?.ok_or(ControlError::NotFound)?;
        if !now.state.is_terminal() {
            // Somebody else has just retried it: what was wanted has happened.
            return Ok(now);
        }
        let holder = key_holder(tx.conn().await?, id).await?;
        return Err(ControlError::KeyHeld { holder });
    }
    inspect::get(tx.conn().await?, scope, id).await?.ok_or(ControlError::NotFound)
}

/// Queues those of the jobs again that failed or were cancelled and whose unique key is free;
/// answers how many.
async fn retry_these(tx: &mut Tx, scope: Scope, ids: &[Uuid]) -> sqlx::Result<u64> {
    let (tenant, user, creator) = scope.columns();
    // The jobs before their keys, as whoever deletes them.
    sqlx::query!(
        "select 1 as locked from jobs
         where id = any($1) and state in ('failed', 'cancelled')
           and ($2::uuid is null or tenant_id = $2) and ($3::uuid is null or user_id = $3)
           and ($4::uuid is null or creator_id = $4)
         order by id for no key update",
        ids,
        tenant,
        user,
        creator,
    )
    .fetch_all(tx.conn().await?)
    .await?;
    // Keys that these jobs left behind. Whoever takes one over is waited for: what follows sees whose it is,
    // and one that nobody took can be deleted.
    sqlx::query!(
        "select 1 as locked from job_keys k join jobs j on j.id = k.job_id
         where j.id = any($1) and j.unique_mode in (1, 2) and j.state in ('failed', 'cancelled')
         order by k.tenant_id, k.kind, k.key for update of k",
        ids,
    )
    .fetch_all(tx.conn().await?)
    .await?;
    // Keys that protect nothing any more, unless one has changed hands by the time that it is locked.
    // Those of other jobs are not locked: their ends delete them.
    sqlx::query!(
        "with free as materialized (
           select k.tenant_id, k.kind, k.key, k.job_id from jobs j
           join job_keys k on k.tenant_id = j.tenant_id and k.kind = j.kind and k.key = j.unique_key
           left join jobs holder on holder.id = k.job_id and holder.state not in ('succeeded', 'failed', 'cancelled')
                                    and (j.unique_mode = 2 or holder.state <> 'running')
           where j.id = any($1) and j.unique_mode in (1, 2) and j.state in ('failed', 'cancelled')
             and (k.until <= queue.now() or holder.id is null))
         delete from job_keys where (tenant_id, kind, key) in (
           select k.tenant_id, k.kind, k.key from free
           join job_keys k on k.tenant_id = free.tenant_id and k.kind = free.kind and k.key = free.key
                              and k.job_id = free.job_id
           for update of k skip locked)",
        ids,
    )
    .execute(tx.conn().await?)
    .await?;
    let rows = sqlx::query!(
        r#"with target as materialized (
             select id, tenant_id, kind, unique_key, unique_mode from jobs
             where id = any($1) and state in ('failed', 'cancelled')
               and ($2::uuid is null or tenant_id = $2) and ($3::uuid is null or user_id = $3)
               and ($4::uuid is null or creator_id = $4)
             order by id for no key update),
           taken as (
             insert into job_keys (tenant_id, kind, key, job_id)
             select distinct on (tenant_id, kind, unique_key) tenant_id, kind, unique_key, id
             from target where unique_mode in (1, 2) order by tenant_id, kind, unique_key, id
             on conflict (tenant_id, kind, key) do nothing
             returning job_id)
           update jobs j set state = 'queued', attempt = 0, fence = j.fence + 1, row_version = j.row_version + 1,
                  run_at = queue.now(), order_at = queue.now() - j.priority * interval '1 minute',
                  lane = j.queue, unknown_since = null, blocked_on = null, park_key = null, boot_id = null,
                  claimed_at = null, started_at = null, finished_at = null, cancel_requested_at = null,
                  cancel_delivered_at = null, cancel_stopped_at = null, result = null, warning = null,
                  errors = (select jsonb_agg(e order by n) from jsonb_array_elements(j.errors) with ordinality as x(e, n)
                            where e->>'kind' <> 'outage')
           from target t
           where j.id = t.id
             and case t.unique_mode when 0 then true
                   when 3 then not exists (select from job_keys k where k.tenant_id = t.tenant_id and k.kind = t.kind
                                             and k.key = t.unique_key and k.job_id <> t.id and k.until > queue.now())
                   else exists (select from taken where taken.job_id = t.id) end
           returning j.id as "id: JobId", j.tenant_id as "tenant: TenantId", j.lane, j.order_at, j.row_version"#,
        ids,
        tenant,
        user,
        creator,
    )
    .fetch_all(tx.conn().await?)
    .await?;
    let retried: Vec<_> = rows.iter().map(|row| row.id.0).collect();
    crate::batch::reopen(tx.conn().await?, &retried).await?;
    let notices: &mut Notices = tx.notices();
    for row in &rows {
        notices.claimable(Lane { name: row.lane.clone(), tenant: row.tenant }, row.order_at.to_jiff());
        notices.changed(row.id, row.row_version);
    }
    Ok(rows.len() as u64)
}

async fn key_holder(conn: &mut PgConnection, id: JobId) -> sqlx::Result<Option<JobId>> {
    sqlx::query_scalar!(
        r#"select k.job_id as "id: JobId" from jobs j
           join job_keys k on k.tenant_id = j.tenant_id and k.kind = j.kind and k.key = j.unique_key
           where j.id = $1 and k.job_id <> j.id"#,
        id.0,
    )
    .fetch_optional(conn)
    .await
}

/// Deletes a job that is over, with what it left; a key that is kept for a time is.
///
/// Unlike the ends of jobs it waits for whoever takes a key over: nobody knows of the job after this, and a
/// key that was not taken in the end would stay for ever.
pub async fn delete(tx: &mut Tx, scope: Scope, id: JobId) -> Result<JobRow, ControlError> {
    let conn = tx.conn().await?;
    let job = inspect::get(conn, scope, id).await?.ok_or(ControlError::NotFound)?;
    let deleted = sqlx::query!(
        "with gone as (
           delete from jobs where id = $1 and state in ('succeeded', 'failed', 'cancelled') returning id, unique_mode),
         steps as (delete from job_steps s using gone where s.job_id = gone.id),
         batches as (delete from job_batches b using gone where b.job_id = gone.id),
         keys as (delete from job_keys k using gone where gone.unique_mode in (1, 2) and k.job_id = gone.id)
         select id from gone",
        id.0,
    )
    .fetch_optional(&mut *conn)
    .await?;
    if deleted.is_none() {
        let now = inspect::get(conn, scope, id).await?.ok_or(ControlError::NotFound)?;
        return Err(ControlError::NotOver(now.state));
    }
    Ok(job)
}

/// What is done to the jobs that a filter matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Cancel,
    Retry,
}

impl Change {
    /// States that it changes anything about.
    fn applies_to(self) -> Vec<State> {
        let applies = |state: &State| match self {
            Self::Cancel => !state.is_terminal(),
            Self::Retry => matches!(state, State::Failed | State::Cancelled),
        };
        State::ALL.into_iter().filter(|state| *state == state.public()).filter(applies).collect()
    }

    /// The filter without the states that this leaves alone. `None`: nothing is left.
    pub fn narrow(self, filter: &Filter) -> Option<Filter> {
        let mut states = self.applies_to();
        if !filter.states.is_empty() {
            states.retain(|state| filter.states.contains(state));
        }
        (!states.is_empty()).then(|| Filter { states, ..filter.clone() })
    }
}

/// What one step over a filter's jobs did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Step {
    pub changed: u64,
    /// Where the next step begins; none follows without it.
    pub next: Option<JobId>,
}

/// Changes at most [`CHUNK`] of the jobs that a [narrowed](Change::narrow) filter matches, the newest
/// first, beginning after the cursor. The job that does so is the exception.
pub async fn change_some(
    tx: &mut Tx,
    scope: Scope,
    change: Change,
    filter: &Filter,
    after: Option<JobId>,
    except: Option<JobId>,
) -> Result<Step, ControlError> {
    let (mut ids, next) = inspect::page_of_ids(tx.conn().await?, scope, filter, after, CHUNK).await?;
    ids.retain(|id| except.is_none_or(|except| except.0 != *id));
    let changed = match change {
        Change::Cancel => {
            for batch in batches_of(tx.conn().await?, &ids).await? {
                crate::batch::cancel_pending(tx, batch).await?;
                cancel_children(tx, batch).await?;
            }
            cancel_these(tx, scope, &ids).await?
        }
        Change::Retry => retry_these(tx, scope, &ids).await?,
    };
    Ok(Step { changed, next })
}

async fn batches_of(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Vec<JobId>> {
    sqlx::query_scalar!(
        r#"select job_id as "id: JobId" from job_batches where job_id = any($1) order by job_id"#,
        ids
    )
    .fetch_all(conn)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_narrowed_to_the_states_it_applies_to() {
        let all = Filter::default();
        let states = |change: Change, filter: &Filter| change.narrow(filter).map(|filter| filter.states);
        assert_eq!(states(Change::Retry, &all), Some(vec![State::Failed, State::Cancelled]));
        let failed = Filter { states: vec![State::Failed, State::Queued], ..Filter::default() };
        assert_eq!(states(Change::Retry, &failed), Some(vec![State::Failed]));
        assert_eq!(states(Change::Cancel, &failed), Some(vec![State::Queued]));
        let succeeded = Filter { states: vec![State::Succeeded], ..Filter::default() };
        assert_eq!(states(Change::Cancel, &succeeded), None);
    }
}
