//! Tenants, the people in them, and who may do what.

mod error;
pub mod jobs;
mod model;
mod people;
mod people_store;
pub mod permissions;
mod reclaim;
mod removal;
mod removal_store;
mod rights;
pub(crate) mod store;
pub mod tenants;
mod tenants_store;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use sqlx::PgConnection;
use streamspace_common::{Actor, Role, Secret, TenantId};
use streamspace_queue::Tx;

pub(crate) use self::model::check_email;
pub(crate) use self::people::{
    free_username, insert_user, lock, may_change, may_manage, of_sign_in, person, person_named, unlock,
    verify_email, waiting,
};
pub(crate) use self::removal::may_decide_deletion;
pub use self::{
    error::Error,
    model::{ChangeTenant, ChangeUser, NewOwner, NewTenant, NewUser, Tenant, Tier, User, UserFilter},
    people::{change_profile, change_user, create_user, profile, user, users},
    permissions::{Forbidden, Least, Permission, Require},
    removal::{Estate, delete_user},
    rights::People,
};
use crate::{
    api_keys::{self, ApiKey, NewApiKey, Owner},
    audit::{self, Entry},
    sign_in::Passwords,
};

/// Makes a tenant and its owner.
pub async fn create_tenant(tx: &mut Tx, new: NewTenant) -> Result<(Tenant, User), Error> {
    tx.require(Permission::TenantsManage)?;
    model::check_text("/name", &new.name, 200)?;
    let slug = new.slug.unwrap_or_else(|| model::slug_of(&new.name));
    model::check_slug(&slug)?;
    if let Some(email) = &new.contact_email {
        model::check_email("/contactEmail", email)?;
    }
    let conn = tx.conn().await?;
    let tenant =
        store::insert_tenant(&mut *conn, &new.name, &slug, new.contact_email.as_deref(), new.tier).await?;
    let made = Entry::new("tenants.create", "tenant", tenant.id)
        .after(json!({ "name": tenant.name, "slug": tenant.slug, "tier": tenant.tier }));
    audit::record_in(tx, tenant.id, made).await?;
    let NewOwner { email, name, platform_admin, password_hash, email_verified } = new.owner;
    let owner = NewUser { email, username: None, name, role: Role::Owner, password_hash };
    let owner = people::insert_user(tx, tenant.id, owner, email_verified).await?;
    let owner = match platform_admin {
        true => set_platform_admin(tx, &tenant, &owner.email, true).await?,
        false => owner,
    };
    Ok((tenant, owner))
}

/// The tenant of whoever asks.
pub async fn tenant_profile(conn: &mut PgConnection, actor: &Actor) -> Result<Tenant, Error> {
    actor.require(Permission::TenantRead)?;
    store::tenant(conn, actor.tenant).await
}

/// What free JSON of a tenant may take.
const LARGEST_METADATA: usize = 16 * 1024;

pub async fn change_tenant(tx: &mut Tx, change: ChangeTenant) -> Result<Tenant, Error> {
    tx.require(Permission::TenantWrite)?;
    let id = tx.tenant();
    let before = store::lock_tenant(tx.conn().await?, id).await?;
    let name = change.name.unwrap_or_else(|| before.name.clone());
    model::check_text("/name", &name, 200)?;
    let contact_email = change.contact_email.unwrap_or_else(|| before.contact_email.clone());
    if let Some(email) = &contact_email {
        model::check_email("/contactEmail", email)?;
    }
    let metadata = change.metadata.unwrap_or_else(|| before.metadata.clone());
    if !metadata.is_object() || metadata.to_string().len() > LARGEST_METADATA {
        let message = "is no object of at most 16 KiB".to_owned();
        return Err(Error::Invalid { field: "/metadata", message });
    }
    let after =
        store::change_tenant(tx.conn().await?, id, &name, contact_email.as_deref(), &metadata).await?;
    let shown = |tenant: &Tenant| json!({ "name": tenant.name, "contactEmail": tenant.contact_email, "metadata": tenant.metadata });
    let changed = Entry::new("tenants.update", "tenant", id).before(shown(&before)).after(shown(&after));
    audit::record(tx, changed).await?;
    Ok(after)
}

/// The tenant of a slug. For those who operate the installation: it looks across tenants.
pub async fn find_tenant(tx: &mut Tx, slug: &str) -> Result<Tenant, Error> {
    tx.require(Permission::TenantsManage)?;
    store::tenant_by_slug(tx.conn().await?, slug).await
}

/// A tenant, for other slices: they have asked for the right, or need none.
pub(crate) async fn tenant_of(conn: &mut PgConnection, id: TenantId) -> Result<Tenant, Error> {
    store::tenant(conn, id).await
}

/// The same by its slug.
pub(crate) async fn tenant_named(conn: &mut PgConnection, slug: &str) -> Result<Option<Tenant>, Error> {
    match store::tenant_by_slug(conn, slug).await {
        Err(Error::NoTenant) => Ok(None),
        found => found.map(Some),
    }
}

/// A person of a tenant by e-mail, for those who operate the installation.
pub async fn find_user(tx: &mut Tx, tenant: &Tenant, email: &str) -> Result<User, Error> {
    tx.require(Permission::TenantsManage)?;
    people_store::by_email(tx.conn().await?, tenant.id, email).await
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
    /// The owner's; shown once too.
    pub password: Secret<String>,
}

/// Makes the first tenant, its owner with the platform flag and a password, and a key of that owner;
/// nothing when there is a tenant already. The caller keeps both secrets before it commits, so that no
/// crash leaves an installation that nobody can enter.
pub async fn first_start(
    tx: &mut Tx,
    hourly_limit: u32,
    passwords: &Passwords,
) -> Result<Option<FirstStart>, FirstStartError> {
    if store::is_inhabited(tx.conn().await?).await? {
        return Ok(None);
    }
    // Nobody is here whom it could hold up that this waits with a connection.
    let password = Secret::new(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 18]>()));
    let password_hash = passwords.hash(password.clone()).await?;
    let new = NewTenant {
        name: "Default".to_owned(),
        slug: None,
        contact_email: None,
        tier: Tier::Enterprise,
        owner: NewOwner {
            email: "admin@localhost".to_owned(),
            name: "Administrator".to_owned(),
            platform_admin: true,
            password_hash: Some(password_hash),
            email_verified: false,
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
    Ok(Some(FirstStart { tenant, owner, key, secret, password }))
}

#[derive(Debug, thiserror::Error)]
pub enum FirstStartError {
    #[error(transparent)]
    Identity(#[from] Error),
    #[error(transparent)]
    Key(#[from] api_keys::Error),
    #[error(transparent)]
    Password(#[from] crate::sign_in::Busy),
    #[error("database")]
    Db(#[from] sqlx::Error),
}
