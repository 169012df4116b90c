//! API keys: making and keeping them, and telling who comes with one.
//!
//! A key of a person acts with that person's rights, whatever they are at that moment; a key of a
//! tenant has a role of its own. Scopes narrow both.

pub(crate) mod callers_store;
mod error;
mod model;
mod scopes;
mod secret;
mod store;
pub mod term;
pub mod usage;
mod usage_store;

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgConnection;
use streamspace_common::{Actor, ApiKeyId, Creator, PLATFORM, Role, Secret, TenantId, UserId};
use streamspace_queue::{Queue, Request, Tx};

pub use self::{
    error::Error,
    model::{ApiKey, Call, Day, Filter, LoggedCall, NewApiKey, Owner},
    scopes::{AREAS, Scopes},
};
use crate::{
    audit::{self, Entry},
    identity::{self, Permission, Require},
    opaque::Form,
};

/// Who acts for a key of the tenant itself, and whether the tenant is active; `None` when it may not any
/// more.
pub(crate) async fn actor(
    conn: &mut PgConnection,
    tenant: TenantId,
    key: ApiKeyId,
) -> sqlx::Result<Option<(Actor, bool)>> {
    let found = callers_store::of_tenant(conn, tenant, key).await?;
    let by = Creator::ApiKey(key);
    Ok(found.map(|(role, active)| {
        (Actor { tenant, by, user: None, key: Some(key), role, platform: false }, active)
    }))
}

/// Tells the audit that somebody came with a key that is known and refused; of one key at most once in ten
/// minutes. Guesses belong to nobody: nothing is told of them.
pub async fn note_refusal(queue: &Queue, request: &Request, presented: &str) -> sqlx::Result<()> {
    let Some(hash) = Form::API_KEY.hash(presented) else { return Ok(()) };
    let mut tx = queue.begin(Actor::system(PLATFORM), request.clone());
    let Some(refusal) = callers_store::note_refusal(tx.conn().await?, &hash).await? else { return Ok(()) };
    let refused =
        Entry::new("api_keys.refuse", "api_key", refusal.key).after(json!({ "reason": refusal.reason }));
    audit::record_in(&mut tx, refusal.tenant, refused).await?;
    tx.commit().await
}

/// Puts down keys whose time is over, so many at most, and tells the audit; answers whether there may be more.
/// Nobody comes with one in the meantime either.
pub(crate) async fn expire(tx: &mut Tx) -> sqlx::Result<bool> {
    let expired = store::expire(tx.conn().await?, MOST_EXPIRED).await?;
    for (tenant, key) in &expired {
        audit::record_in(tx, *tenant, Entry::new("api_keys.expire", "api_key", key)).await?;
    }
    Ok(i64::try_from(expired.len()).is_ok_and(|count| count >= MOST_EXPIRED))
}

/// Makes a key of one's own, or of the tenant. The secret is shown now and never again. `within` are
/// the scopes that the caller came with; only administrators make one for more than `most_hourly` requests.
pub async fn create(
    tx: &mut Tx,
    within: &Scopes,
    most_hourly: u32,
    new: NewApiKey,
) -> Result<(ApiKey, Secret<String>), Error> {
    let tenant = tx.tenant();
    match new.owner {
        Owner::User(user) => {
            tx.require(Permission::ApiKeysOwn)?;
            if tx.actor().user != Some(user) {
                return Err(Error::NotYours);
            }
        }
        Owner::Tenant(_) => tx.require(Permission::ApiKeysManage)?,
    }
    check(tx.actor(), &new)?;
    gives_no_more(within, &new.scopes)?;
    // Whoever could lift their own limit would have none.
    if new.hourly_limit > most_hourly && !Permission::ApiKeysManage.is_held_by(tx.actor()) {
        let message = format!("at most {most_hourly}; an administrator may make one for more");
        return Err(Error::Invalid { field: "/rateLimit", message });
    }
    if let Owner::User(user) = new.owner
        && store::count_active(tx.conn().await?, tenant, user).await? >= MOST_OF_A_PERSON
    {
        return Err(Error::Enough);
    }
    insert(tx, tenant, new).await
}

/// The same in any tenant, for those who operate the installation.
pub async fn create_in(
    tx: &mut Tx,
    tenant: TenantId,
    new: NewApiKey,
) -> Result<(ApiKey, Secret<String>), Error> {
    tx.require(Permission::TenantsManage)?;
    check(tx.actor(), &new)?;
    insert(tx, tenant, new).await
}

const MOST_EXPIRED: i64 = 200;
/// Keys of one person that work: each has a limit of its own.
const MOST_OF_A_PERSON: i64 = 100;
const MAX_NAME: usize = 200;
/// As many as there are, twice.
const MAX_SCOPES: usize = 2 * AREAS.len();

fn check(maker: &Actor, new: &NewApiKey) -> Result<(), Error> {
    let invalid = |field, message: &str| Err(Error::Invalid { field, message: message.to_owned() });
    let length = new.name.chars().count();
    if !(1..=MAX_NAME).contains(&length) || new.name.chars().any(char::is_control) {
        return invalid("/name", "1 to 200 characters, none of them a control character");
    }
    if new.scopes.len() > MAX_SCOPES {
        return invalid("/scopes", "more than there are");
    }
    if let Err(message) = Scopes::check(&new.scopes) {
        return Err(Error::Invalid { field: "/scopes", message });
    }
    if !(1..=i32::MAX.unsigned_abs()).contains(&new.hourly_limit) {
        return invalid("/rateLimit", "at least one request an hour");
    }
    match new.owner {
        Owner::Tenant(Role::Owner) => invalid("/role", "a key of a tenant is at most an admin"),
        // Nobody grants more than they have.
        Owner::Tenant(role) if role > maker.role => invalid("/role", "nobody grants a role above their own"),
        _ => Ok(()),
    }
}

fn gives_no_more(within: &Scopes, scopes: &[String]) -> Result<(), Error> {
    match within.lacking(scopes) {
        Some(scope) => Err(Error::BeyondScopes(scope.to_owned())),
        None => Ok(()),
    }
}

async fn insert(tx: &mut Tx, tenant: TenantId, new: NewApiKey) -> Result<(ApiKey, Secret<String>), Error> {
    let secret = secret::make();
    let key = store::insert(tx, tenant, ApiKeyId::new(), &new, &secret).await?;
    audit::record_in(tx, tenant, Entry::new("api_keys.create", "api_key", key.id).after(shown(&key))).await?;
    Ok((key, secret))
}

/// The keys that one may see: one's own, and for admins every one of the tenant. Newest first, after
/// the cursor.
pub async fn list(
    conn: &mut PgConnection,
    actor: &Actor,
    filter: &Filter,
    after: Option<ApiKeyId>,
    limit: u32,
) -> Result<Vec<ApiKey>, Error> {
    actor.require(Permission::ApiKeysOwn)?;
    Ok(store::list(conn, actor.tenant, reach(actor), filter, after, limit).await?)
}

/// Whose keys somebody sees.
#[derive(Clone, Copy)]
enum Reach {
    Tenant,
    Own(Option<UserId>),
}

fn reach(actor: &Actor) -> Reach {
    if Permission::ApiKeysManage.is_held_by(actor) { Reach::Tenant } else { Reach::Own(actor.user) }
}

async fn visible(
    conn: &mut PgConnection,
    actor: &Actor,
    id: ApiKeyId,
    lock: store::Lock,
) -> Result<ApiKey, Error> {
    actor.require(Permission::ApiKeysOwn)?;
    store::get(conn, actor.tenant, reach(actor), id, lock).await?.ok_or(Error::NotFound)
}

async fn for_change(tx: &mut Tx, id: ApiKeyId) -> Result<ApiKey, Error> {
    let actor = tx.actor().clone();
    visible(tx.conn().await?, &actor, id, store::Lock::ForChange).await
}

/// One that may be ended: of other people only by those who may change them.
async fn for_end(tx: &mut Tx, id: ApiKeyId) -> Result<ApiKey, Error> {
    let key = for_change(tx, id).await?;
    if let Owner::User(user) = key.owner
        && tx.actor().user != Some(user)
    {
        let tenant = tx.tenant();
        let person = identity::person(tx.conn().await?, tenant, user).await?;
        identity::may_change(tx.actor(), &person)?;
    }
    Ok(key)
}

/// It works no more, and is kept.
pub async fn revoke(tx: &mut Tx, id: ApiKeyId) -> Result<ApiKey, Error> {
    let before = for_end(tx, id).await?;
    let tenant = tx.tenant();
    if !store::revoke(tx.conn().await?, tenant, id).await? {
        return Ok(before); // it was already
    }
    let after = ApiKey { is_active: false, previous_until: None, ..before.clone() };
    let entry = Entry::new("api_keys.revoke", "api_key", id).before(shown(&before)).after(shown(&after));
    audit::record(tx, entry).await?;
    Ok(after)
}

/// It and its usage are gone; what it did stays in the audit.
pub async fn delete(tx: &mut Tx, id: ApiKeyId) -> Result<(), Error> {
    let before = for_end(tx, id).await?;
    let tenant = tx.tenant();
    store::delete(tx.conn().await?, tenant, id).await?;
    Ok(audit::record(tx, Entry::new("api_keys.delete", "api_key", id).before(shown(&before))).await?)
}

/// Deletes all keys of somebody who leaves; answers how many.
pub(crate) async fn delete_of(tx: &mut Tx, user: UserId) -> sqlx::Result<usize> {
    let tenant = tx.tenant();
    let gone = store::delete_of(tx.conn().await?, tenant, user).await?;
    for key in &gone {
        audit::record(tx, Entry::new("api_keys.delete", "api_key", key).before(json!({ "user": user })))
            .await?;
    }
    Ok(gone.len())
}

/// Deletes the keys of a tenant that goes and what is known of their use, so many rows of each table at
/// most; answers how many.
pub(crate) async fn erase(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    match usage_store::erase(conn, tenant, most).await? {
        0 => store::erase(conn, tenant, most).await,
        gone => Ok(gone),
    }
}

pub const LONGEST_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Gives a key another secret, shown now and never again; the old one works on for `overlap`. One from
/// a rotation before that ends now. Whoever rotates a key can act as it, so of people's keys that is
/// theirs alone.
pub async fn rotate(
    tx: &mut Tx,
    within: &Scopes,
    id: ApiKeyId,
    overlap: Duration,
) -> Result<(ApiKey, Secret<String>), Error> {
    if overlap > LONGEST_OVERLAP {
        return Err(Error::Invalid { field: "/overlap", message: "between 0 and 30d".to_owned() });
    }
    let before = for_change(tx, id).await?;
    match before.owner {
        Owner::User(user) if tx.actor().user != Some(user) => return Err(Error::NotYours),
        Owner::Tenant(role) if role > tx.actor().role => return Err(Error::NotYours),
        _ => {}
    }
    gives_no_more(within, &before.scopes)?;
    if !before.is_active {
        return Err(Error::NotActive);
    }
    let tenant = tx.tenant();
    let secret = secret::make();
    let previous_until = store::rotate(tx.conn().await?, tenant, id, &secret, overlap).await?;
    let prefix = secret::prefix(secret.expose()).to_owned();
    let after = ApiKey { prefix, previous_until, ..before.clone() };
    let entry = Entry::new("api_keys.rotate", "api_key", id).before(shown(&before)).after(shown(&after));
    audit::record(tx, entry).await?;
    Ok((after, secret))
}

fn shown(key: &ApiKey) -> Value {
    let (user, role) = match key.owner {
        Owner::User(user) => (Some(user), None),
        Owner::Tenant(role) => (None, Some(role)),
    };
    json!({
        "name": key.name,
        "prefix": key.prefix,
        "user": user,
        "role": role,
        "scopes": key.scopes,
        "rateLimit": key.hourly_limit,
        "isActive": key.is_active,
        "expiresAt": key.expires_at,
        "previousUntil": key.previous_until,
    })
}
