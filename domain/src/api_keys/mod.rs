//! API keys: making one, and telling who comes with one.
//!
//! A key of a person acts with that person's rights, whatever they are at that moment; a key of a
//! tenant has a role of its own.

mod check;
mod error;
mod scopes;
mod secret;
mod store;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use streamspace_common::{Actor, ApiKeyId, Creator, Role, Secret, TenantId, UserId};
use streamspace_queue::Tx;

pub use self::{
    check::{Checked, Keys},
    error::Error,
    scopes::{AREAS, Scopes},
};
use crate::{
    audit::{self, Entry},
    identity::{Permission, Require},
};

/// Whose rights a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    User(UserId),
    /// At most `admin`.
    Tenant(Role),
}

#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub name: String,
    pub owner: Owner,
    pub scopes: Vec<String>,
    /// Requests an hour.
    pub hourly_limit: u32,
    pub expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub tenant_id: TenantId,
    pub name: String,
    pub prefix: String,
    pub scopes: Vec<String>,
    pub hourly_limit: u32,
    pub expires_at: Option<Timestamp>,
}

/// Who acts for a key of the tenant itself; `None` when it may not any more.
pub(crate) async fn actor(
    conn: &mut PgConnection,
    tenant: TenantId,
    key: ApiKeyId,
) -> sqlx::Result<Option<Actor>> {
    let role = store::of_tenant(conn, tenant, key).await?;
    Ok(role.map(|role| Actor {
        tenant,
        by: Creator::ApiKey(key),
        user: None,
        key: Some(key),
        role,
        platform: false,
    }))
}

/// Makes a key in the caller's tenant. The secret is shown now and never again.
pub async fn create(tx: &mut Tx, new: NewApiKey) -> Result<(ApiKey, Secret<String>), Error> {
    let tenant = tx.tenant();
    let own = matches!(new.owner, Owner::User(user) if tx.actor().user == Some(user));
    tx.require(if own { Permission::ApiKeysOwn } else { Permission::ApiKeysManage })?;
    insert(tx, tenant, new).await
}

/// The same in any tenant, for those who operate the installation.
pub async fn create_in(
    tx: &mut Tx,
    tenant: TenantId,
    new: NewApiKey,
) -> Result<(ApiKey, Secret<String>), Error> {
    tx.require(Permission::TenantsManage)?;
    insert(tx, tenant, new).await
}

const MAX_NAME: usize = 200;

async fn insert(tx: &mut Tx, tenant: TenantId, new: NewApiKey) -> Result<(ApiKey, Secret<String>), Error> {
    let invalid = |field, message: &str| Err(Error::Invalid { field, message: message.to_owned() });
    let length = new.name.chars().count();
    if !(1..=MAX_NAME).contains(&length) || new.name.chars().any(char::is_control) {
        return invalid("name", "1 to 200 characters, none of them a control character");
    }
    if let Err(message) = Scopes::check(&new.scopes) {
        return Err(Error::Invalid { field: "scopes", message });
    }
    if !(1..=i32::MAX.unsigned_abs()).contains(&new.hourly_limit) {
        return invalid("rateLimit", "at least one request an hour");
    }
    match new.owner {
        Owner::Tenant(Role::Owner) => return invalid("role", "a key of a tenant is at most an admin"),
        // Nobody grants more than they have.
        Owner::Tenant(role) if role > tx.actor().role => {
            return invalid("role", "nobody grants a role above their own");
        }
        _ => {}
    }

    let secret = secret::make();
    let key = ApiKey {
        id: ApiKeyId::new(),
        tenant_id: tenant,
        name: new.name,
        prefix: secret::prefix(secret.expose()).to_owned(),
        scopes: new.scopes,
        hourly_limit: new.hourly_limit,
        expires_at: new.expires_at,
    };
    let hash = secret::hash(secret.expose()).expect("it was just made in this form");
    store::insert(tx, &key, new.owner, &hash).await?;
    let made = Entry::new("api_keys.create", "api_key", key.id)
        .after(json!({ "name": key.name, "prefix": key.prefix, "scopes": key.scopes }));
    audit::record_in(tx, tenant, made).await?;
    Ok((key, secret))
}
