//! Reads take whoever asks and a connection; changes take the transaction, which knows them.

use serde_json::json;
use sqlx::PgConnection;
use streamspace_common::{Actor, JobId};
use streamspace_queue::{
    self as queue, Tx,
    control::{self, Change},
    inspect::{self, Filter, JobRow, Page, Stats, Waiting},
};

use super::{Error, guards, jobs, scope};
use crate::{
    audit::{self, Entry},
    identity::{Permission, Require},
};

pub async fn get(conn: &mut PgConnection, actor: &Actor, id: JobId) -> Result<JobRow, Error> {
    actor.require(Permission::JobsRead)?;
    inspect::get(conn, scope(actor), id).await?.ok_or(Error::NoJob)
}

/// A page of jobs, newest first, after the cursor. It may be short and have a next one.
pub async fn list(
    conn: &mut PgConnection,
    actor: &Actor,
    filter: &Filter,
    after: Option<JobId>,
    limit: u32,
) -> Result<Page, Error> {
    actor.require(Permission::JobsRead)?;
    Ok(inspect::list(conn, scope(actor), filter, after, limit).await?)
}

/// Why a job waits; `None` when it does not.
pub async fn waiting(conn: &mut PgConnection, actor: &Actor, id: JobId) -> Result<Option<Waiting>, Error> {
    actor.require(Permission::JobsRead)?;
    Ok(inspect::waiting(conn, scope(actor), id).await?)
}

pub async fn stats(conn: &mut PgConnection, actor: &Actor) -> Result<Stats, Error> {
    actor.require(Permission::JobsManage)?;
    Ok(inspect::stats(conn, scope(actor)).await?)
}

/// Cancels a job: a waiting one at once, a running one as soon as it has stopped. One that is over is
/// answered as it is.
pub async fn cancel(tx: &mut Tx, id: JobId) -> Result<JobRow, Error> {
    let before = get_for_change(tx, id, Permission::JobsCancel).await?;
    let reach = scope(tx.actor());
    let job = control::cancel(tx, reach, id).await?;
    if job.row_version != before.row_version {
        record(tx, "jobs.cancel", &before, &job).await?;
    }
    Ok(job)
}

/// Queues a failed or cancelled job again.
pub async fn retry(tx: &mut Tx, id: JobId) -> Result<JobRow, Error> {
    let before = get_for_change(tx, id, Permission::JobsManage).await?;
    let reach = scope(tx.actor());
    let job = control::retry(tx, reach, id).await?;
    record(tx, "jobs.retry", &before, &job).await?;
    Ok(job)
}

/// Deletes a job that is over.
pub async fn delete(tx: &mut Tx, id: JobId) -> Result<(), Error> {
    let job = get_for_change(tx, id, Permission::JobsManage).await?;
    let reach = scope(tx.actor());
    control::delete(tx, reach, id).await?;
    let entry = Entry::new("jobs.delete", "job", id)
        .before(json!({ "kind": job.kind, "state": job.state, "createdAt": job.created_at }));
    Ok(audit::record_in(tx, job.tenant, entry).await?)
}

/// What changing the jobs of a filter came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Changed with this request.
    pub changed: u64,
    /// The job that changes the others, when there may be more.
    pub job: Option<JobId>,
}

/// Cancels or retries all jobs that a filter matches: the first few hundred at once, the others by a
/// job of their own, which paces itself. Kinds with a right of their own are left alone by whoever lacks it.
pub async fn change_matching(tx: &mut Tx, change: Change, filter: &Filter) -> Result<Changed, Error> {
    tx.require(Permission::JobsManage)?;
    let filter = &Filter { without_kinds: guards::left_alone(tx.actor()), ..filter.clone() };
    let Some(narrowed) = change.narrow(filter) else {
        return Ok(Changed { changed: 0, job: None });
    };
    let reach = scope(tx.actor());
    let step = control::change_some(tx, reach, change, &narrowed, None, None).await?;
    let job = match step.next {
        Some(after) => {
            let rest = jobs::Change { change, filter: narrowed, after: Some(after), changed: step.changed };
            Some(queue::enqueue(tx, rest).await?.id)
        }
        None => None,
    };
    let action = match change {
        Change::Cancel => "jobs.cancel_matching",
        Change::Retry => "jobs.retry_matching",
    };
    let entry = Entry::new(action, "job", job.map(|job| job.to_string()).unwrap_or_default())
        .after(json!({ "filter": filter, "changed": step.changed }));
    audit::record(tx, entry).await?;
    Ok(Changed { changed: step.changed, job })
}

/// What one can't see does not exist; what one sees and may not change is forbidden.
async fn get_for_change(tx: &mut Tx, id: JobId, permission: Permission) -> Result<JobRow, Error> {
    let actor = tx.actor().clone();
    let job = get(tx.conn().await?, &actor, id).await?;
    tx.require(permission)?;
    guards::require(tx, &job).await?;
    Ok(job)
}

async fn record(tx: &mut Tx, action: &'static str, before: &JobRow, after: &JobRow) -> sqlx::Result<()> {
    let entry = Entry::new(action, "job", after.id)
        .before(json!({ "kind": before.kind, "state": before.state }))
        .after(json!({ "kind": after.kind, "state": after.state }));
    audit::record_in(tx, after.tenant, entry).await
}
