use serde_json::Value;
use sqlx::PgConnection;
use streamspace_common::{PLATFORM, Role, TenantId, UserId};

use super::{
    Error,
    model::{Tenant, Tier},
};

pub(super) struct TenantRow {
    pub(super) id: TenantId,
    pub(super) name: String,
    pub(super) slug: String,
    pub(super) contact_email: Option<String>,
    pub(super) tier: String,
    pub(super) metadata: Value,
    pub(super) active: bool,
    pub(super) delete_at: Option<jiff_sqlx::Timestamp>,
    pub(super) created_at: jiff_sqlx::Timestamp,
    pub(super) updated_at: jiff_sqlx::Timestamp,
}

impl TenantRow {
    pub(super) fn into_tenant(self) -> Tenant {
        Tenant {
            id: self.id,
            name: self.name,
            slug: self.slug,
            contact_email: self.contact_email,
            tier: self.tier.parse().expect("the column's check knows the same tiers"),
            metadata: self.metadata,
            active: self.active,
            delete_at: self.delete_at.map(jiff_sqlx::Timestamp::to_jiff),
            created_at: self.created_at.to_jiff(),
            updated_at: self.updated_at.to_jiff(),
        }
    }
}

pub(super) async fn insert_tenant(
    conn: &mut PgConnection,
    name: &str,
    slug: &str,
    contact_email: Option<&str>,
    tier: Tier,
) -> Result<Tenant, Error> {
    let row = sqlx::query_as!(
        TenantRow,
        r#"insert into tenants (id, name, slug, contact_email, tier) values ($1, $2, $3, $4, $5)
           on conflict (slug) do nothing
           returning id as "id: TenantId", name, slug, contact_email, tier, metadata, active, delete_at,
                     created_at, updated_at"#,
        TenantId::new().0,
        name,
        slug,
        contact_email,
        tier.as_str(),
    )
    .fetch_optional(conn)
    .await?;
    row.map(TenantRow::into_tenant).ok_or_else(|| Error::SlugTaken(slug.to_owned()))
}

pub(super) async fn tenant_by_slug(conn: &mut PgConnection, slug: &str) -> Result<Tenant, Error> {
    let row = sqlx::query_as!(
        TenantRow,
        r#"select id as "id: TenantId", name, slug, contact_email, tier, metadata, active, delete_at,
                  created_at, updated_at
           from tenants where slug = $1 and id <> $2"#,
        slug,
        PLATFORM.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(TenantRow::into_tenant).ok_or(Error::NoTenant)
}

pub(super) async fn tenant(conn: &mut PgConnection, id: TenantId) -> Result<Tenant, Error> {
    let row = sqlx::query_as!(
        TenantRow,
        r#"select id as "id: TenantId", name, slug, contact_email, tier, metadata, active, delete_at, created_at, updated_at
           from tenants where id = $1"#,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(TenantRow::into_tenant).ok_or(Error::NoTenant)
}

pub(super) async fn lock_tenant(conn: &mut PgConnection, id: TenantId) -> Result<Tenant, Error> {
    sqlx::query!("select 1 as one from tenants where id = $1 for update", id.0)
        .fetch_optional(&mut *conn)
        .await?;
    tenant(conn, id).await
}

pub(super) async fn change_tenant(
    conn: &mut PgConnection,
    id: TenantId,
    name: &str,
    contact_email: Option<&str>,
    metadata: &Value,
) -> Result<Tenant, Error> {
    let row = sqlx::query_as!(
        TenantRow,
        r#"update tenants set name = $2, contact_email = $3, metadata = $4, updated_at = now() where id = $1
           returning id as "id: TenantId", name, slug, contact_email, tier, metadata, active, delete_at, created_at,
                     updated_at"#,
        id.0,
        name,
        contact_email,
        metadata,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.into_tenant())
}

pub(super) async fn set_platform_admin(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    platform_admin: bool,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update users set platform_admin = $3, updated_at = now() where tenant_id = $1 and id = $2",
        tenant.0,
        user.0,
        platform_admin,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a person may do who is not disabled; nothing while the tenant is not active.
pub(super) struct PersonRights {
    pub role: Role,
    pub platform_admin: bool,
    pub tenant_active: bool,
}

pub(super) async fn rights(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<Option<PersonRights>> {
    let row = sqlx::query!(
        "select u.role, u.platform_admin, t.active from users u join tenants t on t.id = u.tenant_id
         where u.tenant_id = $1 and u.id = $2 and u.active",
        tenant.0,
        user.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| PersonRights {
        role: role(&row.role),
        platform_admin: row.platform_admin,
        tenant_active: row.active,
    }))
}

/// Whether anyone but the installation itself is here. Holds the answer until the commit: two
/// processes that start at once must not both find an empty house.
pub(super) async fn is_inhabited(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query!("select 1 as one from tenants where id = $1 for update", PLATFORM.0)
        .fetch_optional(&mut *conn)
        .await?;
    sqlx::query_scalar!(r#"select exists (select 1 from tenants where id <> $1) as "some!""#, PLATFORM.0)
        .fetch_one(conn)
        .await
}

pub(crate) fn role(text: &str) -> Role {
    text.parse().expect("the column's check knows the same roles")
}
