//! How somebody leaves a tenant.
//!
//! They are disabled at once, and a job does the rest: it hands over or deletes what they own, and their
//! row. Until it has, an administrator may cancel it and let them in again. What they did stays in the
//! audit under their id, which then is a pseudonym; that they were deleted is told there without their
//! names.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamspace_common::{JobId, Role, UserId};
use streamspace_queue::{
    self as queue, Tx,
    inspect::{self, JobRow, Scope},
};

use super::{
    Error, Permission, Require, User, jobs::DeleteUser, people::may_change, people_store as people,
    removal_store as store,
};
use crate::{
    audit::{self, Entry},
    links, sign_in,
};

/// What becomes of what a person owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Estate {
    TransferTo(UserId),
    Purge,
}

/// Disables a person and has them deleted. Asked for again, it is the same job, unless that has failed
/// or was cancelled.
pub async fn delete_user(tx: &mut Tx, id: UserId, estate: Estate) -> Result<(User, JobId), Error> {
    tx.require(Permission::UsersManage)?;
    let actor = tx.actor().clone();
    let conn = tx.conn().await?;
    let before = people::lock(conn, actor.tenant, id).await?;
    if actor.user != Some(id) {
        may_change(&actor, &before)?;
    }
    let is_owner = before.role == Role::Owner && before.active;
    if is_owner && !people::has_other_owner(conn, actor.tenant, id).await? {
        return Err(Error::LastOwner);
    }
    if let Estate::TransferTo(heir) = estate {
        let heir = people::by_id(conn, actor.tenant, heir).await.ok();
        check_heir(id, heir.as_ref())?;
    }
    let job = queue::enqueue(tx, DeleteUser { user: id, estate }).await?;
    if job.duplicate {
        let running = job_of(tx, job.id).await?;
        let other = running.is_none_or(|job| DeleteUser::estate_of(&job.args) != Some(estate));
        if other {
            return Err(Error::BeingDeleted(job.id));
        }
    }
    store::begin(tx.conn().await?, actor.tenant, id, job.id).await?;
    sign_in::end_all(tx, actor.tenant, id).await?;
    links::void(tx, actor.tenant, id).await?;
    if !job.duplicate {
        let deleted = Entry::new("users.delete", "user", id)
            .before(json!({ "role": before.role, "active": before.active }))
            .after(json!({ "active": false, "job": job.id, "estate": estate }));
        audit::record(tx, deleted).await?;
    }
    let after = people::by_id(tx.conn().await?, actor.tenant, id).await?;
    Ok((after, job.id))
}

fn check_heir(leaving: UserId, heir: Option<&User>) -> Result<(), Error> {
    let refuse = |message: &str| Err(Error::Invalid { field: "transferTo", message: message.to_owned() });
    match heir {
        None => refuse("there is no such person in this tenant"),
        Some(heir) if heir.id == leaving => refuse("is the person who is to be deleted"),
        Some(heir) if !heir.active => refuse("is disabled"),
        Some(heir) if !may_own(heir.role) => refuse("is a viewer, who owns nothing"),
        Some(_) => Ok(()),
    }
}

fn may_own(role: Role) -> bool {
    role >= Role::User
}

/// Lets somebody in again who was to be deleted. Needs their row's lock.
pub(super) async fn take_back(tx: &mut Tx, user: UserId) -> Result<(), Error> {
    let tenant = tx.tenant();
    let Some(job) = store::job_of(tx.conn().await?, tenant, user).await? else { return Ok(()) };
    if job_of(tx, job).await?.is_some_and(|job| !job.state.is_terminal()) {
        return Err(Error::BeingDeleted(job));
    }
    Ok(store::take_back(tx.conn().await?, tenant, user).await?)
}

async fn job_of(tx: &mut Tx, job: JobId) -> Result<Option<JobRow>, Error> {
    let tenant = tx.tenant();
    Ok(inspect::get(tx.conn().await?, Scope::Tenant(tenant), job).await?)
}

/// Whether whoever acts may stop, repeat or forget the job of somebody's deletion: who could ask for it.
/// Of somebody who is gone nothing is left to decide.
pub(crate) async fn may_decide_deletion(tx: &mut Tx, job: &JobRow) -> Result<(), Error> {
    let Some(leaving) = DeleteUser::user_of(&job.args) else { return Ok(()) };
    match people::by_id(tx.conn().await?, job.tenant, leaving).await {
        Ok(person) => may_change(tx.actor(), &person),
        Err(Error::NoUser) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Who is still to be deleted by this job, and with the rights that they had. Nobody whom somebody has
/// let in again, or whom a later job is to delete. Their row is locked until the commit.
pub(super) async fn leaving(tx: &mut Tx, job: JobId, user: UserId) -> Result<Option<Role>, Error> {
    let tenant = tx.tenant();
    Ok(store::leaving(tx.conn().await?, tenant, user, job).await?)
}

/// Whoever inherits: they may still, and stay so until the commit.
pub(super) async fn heir(tx: &mut Tx, estate: Estate) -> Result<Option<(UserId, Role)>, Error> {
    let Estate::TransferTo(heir) = estate else { return Ok(None) };
    let tenant = tx.tenant();
    let role = store::hold(tx.conn().await?, tenant, heir).await?.filter(|role| may_own(*role));
    Ok(Some((heir, role.ok_or(Error::NoHeir)?)))
}

/// The last of them: their row, with what hangs on it.
pub(super) async fn erase(tx: &mut Tx, user: UserId, left: Value) -> Result<(), Error> {
    let tenant = tx.tenant();
    store::erase(tx.conn().await?, tenant, user).await?;
    Ok(audit::record(tx, Entry::new("users.erase", "user", user).after(left)).await?)
}
