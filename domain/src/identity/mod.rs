//! Tenants, the people in them, and who may do what.

mod error;
pub mod jobs;
mod model;
pub mod permissions;
mod rights;
pub(crate) mod store;

use serde_json::json;
use streamspace_common::Secret;
use streamspace_queue::Tx;

pub use self::{
    error::Error,
    model::{NewOwner, NewTenant, Tenant, Tier, User},
    permissions::{Forbidden, Least, Permission, Require},
    rights::People,
};
use crate::{
    api_keys::{self, ApiKey, NewApiKey, Owner},
    audit::{self, Entry},
};

/// Makes a tenant and its owner.
pub async fn create_tenant(tx: &mut Tx, new: NewTenant) -> Result<(Tenant, User), Error> {
    tx.require(Permission::TenantsManage)?;
    model::check_text("name", &new.name, 200)?;
    let slug = new.slug.unwrap_or_else(|| model::slug_of(&new.name));
    model::check_slug(&slug)?;
    if let Some(email) = &new.contact_email {
        model::check_email("contactEmail", email)?;
    }
    model::check_email("email", &new.owner.email)?;
    model::check_text("owner", &new.owner.name, 200)?;

    let conn = tx.conn().await?;
    let tenant =
        store::insert_tenant(&mut *conn, &new.name, &slug, new.contact_email.as_deref(), new.tier).await?;
    let owner = store::insert_owner(conn, tenant.id, &new.owner).await?;
    let made = Entry::new("tenants.create", "tenant", tenant.id)
        .after(json!({ "name": tenant.name, "slug": tenant.slug, "tier": tenant.tier }));
    audit::record_in(tx, tenant.id, made).await?;
    let made = Entry::new("users.create", "user", owner.id)
        .after(json!({ "email": owner.email, "role": owner.role, "platformAdmin": owner.platform_admin }));
    audit::record_in(tx, tenant.id, made).await?;
    Ok((tenant, owner))
}

/// The tenant of a slug. For those who operate the installation: it looks across tenants.
pub async fn find_tenant(tx: &mut Tx, slug: &str) -> Result<Tenant, Error> {
    tx.require(Permission::TenantsManage)?;
    store::tenant_by_slug(tx.conn().await?, slug).await
}

/// A person of a tenant by e-mail, for those who operate the installation.
pub async fn find_user(tx: &mut Tx, tenant: &Tenant, email: &str) -> Result<User, Error> {
    tx.require(Permission::TenantsManage)?;
    store::user_by_email(tx.conn().await?, tenant.id, email).await
}

/// Makes a person of a tenant a platform administrator, or no longer one. For those who operate the
/// installation.
pub async fn set_platform_admin(
    tx: &mut Tx,
    tenant: &Tenant,
    email: &str,
    platform_admin: bool,
) -> Result<User, Error> {
    let user = find_user(tx, tenant, email).await?;
    if platform_admin && !user.active {
        return Err(Error::Inactive);
    }
    store::set_platform_admin(tx.conn().await?, tenant.id, user.id, platform_admin).await?;
    let action = if platform_admin { "platform.grant" } else { "platform.revoke" };
    let changed = Entry::new(action, "user", user.id)
        .before(json!({ "platformAdmin": user.platform_admin }))
        .after(json!({ "platformAdmin": platform_admin }));
    audit::record_in(tx, tenant.id, changed).await?;
    Ok(User { platform_admin, ..user })
}

/// What the first start makes, so that somebody can use the installation.
#[derive(Debug)]
pub struct FirstStart {
    pub tenant: Tenant,
    pub owner: User,
    pub key: ApiKey,
    /// Shown once; the database has its hash.
    pub secret: Secret<String>,
}

/// Makes the first tenant, its owner with the platform flag, and a key of that owner; nothing when
/// there is a tenant already. The caller keeps the secret before it commits, so that no crash leaves
/// an installation that nobody can enter.
pub async fn first_start(tx: &mut Tx, hourly_limit: u32) -> Result<Option<FirstStart>, api_keys::Error> {
    if store::is_inhabited(tx.conn().await?).await? {
        return Ok(None);
    }
    let new = NewTenant {
        name: "Default".to_owned(),
        slug: None,
        contact_email: None,
        tier: Tier::Enterprise,
        owner: NewOwner {
            email: "admin@localhost".to_owned(),
            name: "Administrator".to_owned(),
            platform_admin: true,
        },
    };
    let (tenant, owner) = create_tenant(tx, new).await?;
    let new = NewApiKey {
        name: "First start".to_owned(),
        owner: Owner::User(owner.id),
        scopes: vec!["*".to_owned()],
        hourly_limit,
        expires_at: None,
    };
    let (key, secret) = api_keys::create_in(tx, tenant.id, new).await?;
    Ok(Some(FirstStart { tenant, owner, key, secret }))
}
