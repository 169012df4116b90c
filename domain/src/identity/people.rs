//! The people of a tenant, and what they may change about each other.
//!
//! Admins manage everybody up to operators; admins and owners are managed by owners, so that nobody rises
//! above what they are, by another's account neither.

use serde_json::{Value, json};
use sqlx::PgConnection;
use streamspace_common::{Actor, Creator, Role, TenantId, UserId};
use streamspace_queue::Tx;

use super::{
    ChangeUser, Error, NewUser, Permission, Require, Tenant, User, UserFilter, model,
    people_store::{self as store, Insert},
    reclaim, removal, store as tenant_store,
};
use crate::{
    audit::{self, Entry},
    links, sign_in,
};

/// A page of the tenant's people, newest first, after the cursor.
pub async fn users(
    conn: &mut PgConnection,
    actor: &Actor,
    filter: &UserFilter,
    after: Option<UserId>,
    limit: u32,
) -> Result<Vec<User>, Error> {
    actor.require(Permission::UsersManage)?;
    Ok(store::list(conn, actor.tenant, filter, after, limit).await?)
}

pub async fn user(conn: &mut PgConnection, actor: &Actor, id: UserId) -> Result<User, Error> {
    actor.require(Permission::UsersManage)?;
    store::by_id(conn, actor.tenant, id).await
}

/// One's own.
pub async fn profile(conn: &mut PgConnection, actor: &Actor) -> Result<User, Error> {
    actor.require(Permission::ProfileOwn)?;
    store::by_id(conn, actor.tenant, actor.user.ok_or(Error::NoUser)?).await
}

/// Anybody, for other slices: they have asked for the right.
pub(crate) async fn person(conn: &mut PgConnection, tenant: TenantId, id: UserId) -> Result<User, Error> {
    store::by_id(conn, tenant, id).await
}

/// The same, locked until the commit.
pub(crate) async fn lock(conn: &mut PgConnection, tenant: TenantId, id: UserId) -> Result<User, Error> {
    store::lock(conn, tenant, id).await
}

/// Anybody by their address, for other slices.
pub(crate) async fn person_named(
    conn: &mut PgConnection,
    tenant: TenantId,
    email: &str,
) -> Result<Option<User>, Error> {
    match store::by_email(conn, tenant, email).await {
        Err(Error::NoUser) => Ok(None),
        found => found.map(Some),
    }
}

/// A username like this that nobody has, in the letters that one may have.
pub(crate) async fn free_username(
    conn: &mut PgConnection,
    tenant: TenantId,
    wanted: &str,
) -> Result<String, Error> {
    Ok(store::free_username(conn, tenant, &model::username_of(wanted)).await?)
}

/// Whoever signs in, with the tenant; nobody who may not.
pub(crate) async fn of_sign_in(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: UserId,
) -> Result<(User, Tenant), Error> {
    let user = store::by_id(conn, tenant, id).await?;
    let tenant = tenant_store::tenant(conn, tenant).await?;
    if user.active && tenant.active { Ok((user, tenant)) } else { Err(Error::NoUser) }
}

/// Makes a person of one's own tenant.
pub async fn create_user(tx: &mut Tx, new: NewUser) -> Result<User, Error> {
    tx.require(Permission::UsersManage)?;
    may_manage(tx.actor(), new.role)?;
    let tenant = tx.tenant();
    let has_way_in = new.password_hash.is_some();
    let user = insert_user(tx, tenant, new, false).await?;
    if has_way_in {
        links::ask_to_verify(tx, &user).await?;
    }
    Ok(user)
}

/// Whoever has this address in one's tenant and no way in yet.
pub(crate) async fn waiting(tx: &mut Tx, email: &str) -> Result<Option<User>, Error> {
    let tenant = tx.tenant();
    Ok(store::waiting(tx.conn().await?, tenant, email).await?)
}

/// Somebody has shown that the address is theirs, and with it the account.
pub(crate) async fn verify_email(tx: &mut Tx, user: &User) -> Result<(), Error> {
    store::set_email_proven(tx.conn().await?, user.tenant, user.id).await?;
    reclaim::from_strangers(tx, user).await?;
    if user.email_verified {
        return Ok(()); // a provider has said so before
    }
    let verified = Entry::new("users.verify_email", "user", user.id).after(json!({ "email": user.email }));
    Ok(audit::record_in(tx, user.tenant, verified).await?)
}

/// Forgives the failures that have closed an account.
pub(crate) async fn unlock(tx: &mut Tx, user: &User) -> sqlx::Result<()> {
    store::unlock(tx.conn().await?, user.tenant, user.id).await
}

/// The same for whoever has asked for another right.
pub(crate) async fn insert_user(
    tx: &mut Tx,
    tenant: TenantId,
    new: NewUser,
    email_verified: bool,
) -> Result<User, Error> {
    model::check_email("/email", &new.email)?;
    model::check_text("/name", &new.name, 200)?;
    let conn = tx.conn().await?;
    let username = match new.username {
        Some(username) => username,
        None => store::free_username(conn, tenant, &model::username_of(&new.email)).await?,
    };
    model::check_username(&username)?;
    let insert = Insert {
        email: &new.email,
        username: &username,
        name: &new.name,
        role: new.role,
        platform_admin: false,
        password_hash: new.password_hash.as_deref(),
        email_verified,
    };
    let user = store::insert(conn, tenant, insert).await?;
    let made = Entry::new("users.create", "user", user.id).after(shown(&user));
    audit::record_in(tx, tenant, made).await?;
    Ok(user)
}

/// Changes what somebody is. Who is disabled is out at once.
pub async fn change_user(tx: &mut Tx, id: UserId, change: ChangeUser) -> Result<User, Error> {
    tx.require(Permission::UsersManage)?;
    let actor = tx.actor().clone();
    let conn = tx.conn().await?;
    let before = store::lock(conn, actor.tenant, id).await?;
    let is_self = actor.user == Some(id);
    // Whoever has somebody's session would guess at their password or second factor without end.
    if is_self && change.unlock {
        return Err(Error::OwnLock);
    }
    if !is_self {
        may_change(&actor, &before)?;
    } else if change.role.is_some() || change.active.is_some() {
        may_manage(&actor, before.role)?;
    }
    if let Some(role) = change.role {
        may_manage(&actor, role)?;
    }
    let loses_owner = before.role == Role::Owner
        && before.active
        && (change.role.is_some_and(|role| role != Role::Owner) || change.active == Some(false));
    if loses_owner && !store::has_other_owner(conn, actor.tenant, id).await? {
        return Err(Error::LastOwner);
    }
    if change.active == Some(true) && !before.active {
        removal::take_back(tx, id).await?;
    }
    apply(tx, before, change).await
}

/// Changes what one may about oneself.
pub async fn change_profile(
    tx: &mut Tx,
    name: Option<String>,
    username: Option<String>,
) -> Result<User, Error> {
    tx.require(Permission::ProfileOwn)?;
    let (tenant, user) = (tx.tenant(), tx.actor().user.ok_or(Error::NoUser)?);
    let before = store::lock(tx.conn().await?, tenant, user).await?;
    apply(tx, before, ChangeUser { name, username, ..ChangeUser::default() }).await
}

async fn apply(tx: &mut Tx, before: User, change: ChangeUser) -> Result<User, Error> {
    let after = User {
        name: change.name.unwrap_or_else(|| before.name.clone()),
        email: change.email.unwrap_or_else(|| before.email.clone()),
        username: change.username.unwrap_or_else(|| before.username.clone()),
        role: change.role.unwrap_or(before.role),
        active: change.active.unwrap_or(before.active),
        ..before.clone()
    };
    model::check_text("/name", &after.name, 200)?;
    model::check_email("/email", &after.email)?;
    if after.username != before.username {
        model::check_username(&after.username)?;
    }
    let tenant = before.tenant;
    let conn = tx.conn().await?;
    store::update(conn, &after).await?;
    if change.unlock {
        store::unlock(conn, tenant, before.id).await?;
    }
    if change.reset_mfa && before.mfa_enabled {
        sign_in::mfa::remove(tx, tenant, before.id).await?;
    }
    if before.active && !after.active {
        sign_in::end_all(tx, tenant, before.id).await?;
        links::void(tx, tenant, before.id).await?;
    }
    let after = store::by_id(tx.conn().await?, tenant, before.id).await?;
    if after.active && !after.email.eq_ignore_ascii_case(&before.email) {
        links::moved(tx, &before, &after).await?;
    }
    let (was, is) = (shown(&before), shown(&after));
    if was != is || change.unlock {
        let changed = Entry::new("users.update", "user", after.id).before(was).after(is);
        audit::record(tx, changed).await?;
    }
    Ok(after)
}

/// Whether somebody may change and remove this person. Who reaches the whole installation is changed by
/// nobody who does not: whoever has their address has their account.
pub(crate) fn may_change(actor: &Actor, person: &User) -> Result<(), Error> {
    if person.platform_admin && !actor.platform && actor.by != Creator::System {
        return Err(Error::NeedsPlatform);
    }
    may_manage(actor, person.role)
}

/// Whether somebody may make, change and remove people of this role.
pub(crate) fn may_manage(actor: &Actor, role: Role) -> Result<(), Error> {
    if role < Role::Admin || actor.role == Role::Owner { Ok(()) } else { Err(Error::NeedsOwner) }
}

fn shown(user: &User) -> Value {
    json!({
        "email": user.email,
        "username": user.username,
        "name": user.name,
        "role": user.role,
        "active": user.active,
        "platformAdmin": user.platform_admin,
        "lockedUntil": user.locked_until,
    })
}
