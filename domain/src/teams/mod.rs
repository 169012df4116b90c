//! Teams: people of a tenant who share sessions and an allowance.
//!
//! Who is a member, and with which role, is read from the database by every operation and kept by no
//! process, so that a change acts at once on every replica. Whoever does not see a team is told that
//! there is none.
//!
//! Changes of a team lock its row first, so that the rule of the last owner also holds for two that
//! come at the same time. An owner who cannot sign in does not count.

mod error;
mod leaving;
mod leaving_store;
mod model;
mod store;

use serde_json::{Value, json};
use sqlx::PgConnection;
use streamspace_common::{Actor, Role, TeamId, TenantId, UserId};
use streamspace_queue::Tx;

pub(crate) use self::leaving::leave;
pub use self::{
    error::Error,
    model::{ChangeTeam, MAX_DESCRIPTION, MAX_NAME, Member, NewTeam, Team, TeamPermission, TeamRole, Whom},
};
use crate::{
    audit::{self, Entry},
    identity::{Permission, Require},
};

/// A page of the teams that somebody sees, newest first, after the cursor; `named`: those with this
/// in their names.
pub async fn list(
    conn: &mut PgConnection,
    actor: &Actor,
    named: Option<&str>,
    after: Option<TeamId>,
    limit: u32,
) -> Result<Vec<Team>, Error> {
    actor.require(Permission::TeamsRead)?;
    if actor.role >= Role::Operator {
        return Ok(store::of_tenant(conn, actor.tenant, actor.user, named, after, limit).await?);
    }
    mine(conn, actor, named, after, limit).await
}

/// The same of the teams that somebody is a member of. A key of the tenant is in none.
pub async fn mine(
    conn: &mut PgConnection,
    actor: &Actor,
    named: Option<&str>,
    after: Option<TeamId>,
    limit: u32,
) -> Result<Vec<Team>, Error> {
    actor.require(Permission::TeamsRead)?;
    let Some(user) = actor.user else { return Ok(Vec::new()) };
    Ok(store::of_user(conn, actor.tenant, user, named, after, limit).await?)
}

pub async fn get(conn: &mut PgConnection, actor: &Actor, id: TeamId) -> Result<Team, Error> {
    Ok(rights(conn, actor, id).await?.0)
}

/// A page of its members, by their ids, after the cursor.
pub async fn members(
    conn: &mut PgConnection,
    actor: &Actor,
    id: TeamId,
    after: Option<UserId>,
    limit: u32,
) -> Result<Vec<Member>, Error> {
    rights(conn, actor, id).await?;
    Ok(store::members(conn, actor.tenant, id, after, limit).await?)
}

/// The team, and whose role's rights the caller has in it. What one can't see does not exist.
pub async fn rights(conn: &mut PgConnection, actor: &Actor, id: TeamId) -> Result<(Team, TeamRole), Error> {
    actor.require(Permission::TeamsRead)?;
    let team = store::get(conn, actor.tenant, id, actor.user).await?.ok_or(Error::NoTeam)?;
    let rights = model::standing(actor, team.role).ok_or(Error::NoTeam)?;
    Ok((team, rights))
}

/// Makes a team. Whoever makes it is its owner.
pub async fn create(tx: &mut Tx, new: NewTeam) -> Result<Team, Error> {
    tx.require(Permission::TeamsWrite)?;
    model::check(&new)?;
    let (tenant, user) = (tx.tenant(), tx.actor().user.ok_or(Error::Nobody)?);
    let conn = tx.conn().await?;
    let mut team = store::insert(conn, tenant, &new, user).await?;
    store::insert_member(conn, tenant, team.id, user, TeamRole::Owner).await.map_err(|error| match error
        .as_database_error()
        .and_then(|error| error.constraint())
    {
        Some("team_members_user") => Error::Nobody,
        _ => Error::Db(error),
    })?;
    team.role = Some(TeamRole::Owner);
    let made = Entry::new("teams.create", "team", team.id)
        .after(json!({ "name": team.name, "description": team.description, "owner": user }));
    audit::record(tx, made).await?;
    Ok(team)
}

pub async fn update(tx: &mut Tx, id: TeamId, change: ChangeTeam) -> Result<Team, Error> {
    let (before, rights) = lock(tx, id).await?;
    rights.require(TeamPermission::Manage)?;
    let new = NewTeam {
        name: change.name.unwrap_or_else(|| before.name.clone()),
        description: change.description.unwrap_or_else(|| before.description.clone()),
    };
    model::check(&new)?;
    let tenant = tx.tenant();
    let updated_at = store::update(tx.conn().await?, tenant, id, &new).await?;
    let after = Team { name: new.name, description: new.description, updated_at, ..before.clone() };
    let changed = Entry::new("teams.update", "team", id).before(shown(&before)).after(shown(&after));
    audit::record(tx, changed).await?;
    Ok(after)
}

/// Deletes a team with its memberships; the people stay.
pub async fn delete(tx: &mut Tx, id: TeamId) -> Result<(), Error> {
    let (team, rights) = lock(tx, id).await?;
    rights.require(TeamPermission::Manage)?;
    let tenant = tx.tenant();
    store::delete(tx.conn().await?, tenant, id).await?;
    Ok(audit::record(tx, Entry::new("teams.delete", "team", id).before(shown(&team))).await?)
}

pub async fn add_member(tx: &mut Tx, id: TeamId, whom: Whom, role: TeamRole) -> Result<Member, Error> {
    let (_, rights) = lock(tx, id).await?;
    rights.require(TeamPermission::MembersManage)?;
    within(rights, role)?;
    let tenant = tx.tenant();
    let conn = tx.conn().await?;
    let user = store::person(conn, tenant, &whom).await?.ok_or_else(|| {
        let pointer = match whom {
            Whom::User(_) => "/userId",
            Whom::Email(_) => "/email",
        };
        Error::Invalid { pointer, detail: "there is no such person in this tenant".to_owned() }
    })?;
    if !store::insert_member(conn, tenant, id, user, role).await? {
        return Err(Error::AlreadyMember);
    }
    let member = store::member(conn, tenant, id, user).await?.ok_or(Error::NoMember)?;
    let added = Entry::new("teams.add_member", "team", id).after(json!({ "user": user, "role": role }));
    audit::record(tx, added).await?;
    Ok(member)
}

pub async fn change_member(tx: &mut Tx, id: TeamId, user: UserId, role: TeamRole) -> Result<Member, Error> {
    let (_, rights) = lock(tx, id).await?;
    rights.require(TeamPermission::MembersManage)?;
    let tenant = tx.tenant();
    let before = store::member(tx.conn().await?, tenant, id, user).await?.ok_or(Error::NoMember)?;
    within(rights, role.max(before.role))?;
    if role < TeamRole::Owner {
        keep_an_owner(tx, id, &before).await?;
    }
    store::set_role(tx.conn().await?, tenant, id, user, role).await?;
    let changed = Entry::new("teams.change_member", "team", id)
        .before(json!({ "user": user, "role": before.role }))
        .after(json!({ "user": user, "role": role }));
    audit::record(tx, changed).await?;
    Ok(Member { role, ..before })
}

/// Ends a membership. Everybody may end their own.
pub async fn remove_member(tx: &mut Tx, id: TeamId, user: UserId) -> Result<(), Error> {
    tx.require(Permission::TeamsLeave)?;
    let (_, rights) = lock_seen(tx, id).await?;
    let leaves = tx.actor().user == Some(user);
    if !leaves {
        tx.require(Permission::TeamsWrite)?;
        rights.require(TeamPermission::MembersManage)?;
    }
    let tenant = tx.tenant();
    let member = store::member(tx.conn().await?, tenant, id, user).await?.ok_or(Error::NoMember)?;
    if !leaves {
        within(rights, member.role)?;
    }
    keep_an_owner(tx, id, &member).await?;
    store::delete_member(tx.conn().await?, tenant, id, user).await?;
    let removed =
        Entry::new("teams.remove_member", "team", id).before(json!({ "user": user, "role": member.role }));
    Ok(audit::record(tx, removed).await?)
}

/// One of these that the tenant does not have.
pub(crate) async fn absent(
    conn: &mut PgConnection,
    tenant: TenantId,
    teams: &[TeamId],
) -> sqlx::Result<Option<TeamId>> {
    if teams.is_empty() {
        return Ok(None);
    }
    store::absent(conn, tenant, teams).await
}

/// The team, with its row locked until the commit. Rights are read under the lock: somebody who was
/// removed while they waited for it has none.
async fn lock_seen(tx: &mut Tx, id: TeamId) -> Result<(Team, TeamRole), Error> {
    let actor = tx.actor().clone();
    let conn = tx.conn().await?;
    store::lock(conn, actor.tenant, id).await?;
    rights(conn, &actor, id).await
}

async fn lock(tx: &mut Tx, id: TeamId) -> Result<(Team, TeamRole), Error> {
    let seen = lock_seen(tx, id).await?;
    tx.require(Permission::TeamsWrite)?;
    Ok(seen)
}

fn within(own: TeamRole, role: TeamRole) -> Result<(), Error> {
    if role > own { Err(Error::AboveOwn(role)) } else { Ok(()) }
}

/// Refuses to take an owner away when nobody else is one. Needs the lock.
async fn keep_an_owner(tx: &mut Tx, id: TeamId, leaving: &Member) -> Result<(), Error> {
    let tenant = tx.tenant();
    if leaving.role < TeamRole::Owner
        || store::has_owner_beside(tx.conn().await?, tenant, id, leaving.user).await?
    {
        return Ok(());
    }
    Err(Error::LastOwner)
}

fn shown(team: &Team) -> Value {
    json!({ "name": team.name, "description": team.description })
}

/// Deletes the teams of a tenant that goes, so many rows of each table at most; answers how many.
pub(crate) async fn erase(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    leaving_store::erase(conn, tenant, most).await
}
