//! The SQL of tenants that come, stand still and go.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgConnection;
use streamspace_common::{PLATFORM, TenantId};
use uuid::Uuid;

use super::{
    model::{Tenant, Tier},
    store::TenantRow,
};

/// All but the platform's, oldest first, after the cursor.
pub(super) async fn list(
    conn: &mut PgConnection,
    after: Option<TenantId>,
    limit: u32,
) -> sqlx::Result<Vec<Tenant>> {
    let rows = sqlx::query_as!(
        TenantRow,
        r#"select id as "id: TenantId", name, slug, contact_email, tier, metadata, active, delete_at, created_at, updated_at
           from tenants where id <> $1 and id > $2 order by id limit $3"#,
        PLATFORM.0,
        after.map_or(Uuid::nil(), |after| after.0),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(TenantRow::into_tenant).collect())
}

/// Who is in a tenant.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Census {
    pub people: i64,
    /// The addresses of those who own it and can sign in: ten at most.
    pub owners: Vec<String>,
}

pub(super) async fn census(conn: &mut PgConnection, tenant: TenantId) -> sqlx::Result<Census> {
    sqlx::query_as!(
        Census,
        r#"select (select count(*) from users where tenant_id = $1) as "people!",
                  array(select email from users where tenant_id = $1 and role = 'owner' and active
                        order by id limit 10) as "owners!""#,
        tenant.0,
    )
    .fetch_one(conn)
    .await
}

macro_rules! change_tenant {
    ($change:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            TenantRow,
            "update tenants set updated_at = now(), "
                + $change
                + r#" returning id as "id: TenantId", name, slug, contact_email, tier, metadata, active, delete_at,
                      created_at, updated_at"#
            $(, $argument)*
        )
    };
}

pub(super) async fn set_active(
    conn: &mut PgConnection,
    tenant: TenantId,
    active: bool,
) -> sqlx::Result<Tenant> {
    let row = change_tenant!("active = $2 where id = $1", tenant.0, active).fetch_one(conn).await?;
    Ok(row.into_tenant())
}

pub(super) async fn set_tier(conn: &mut PgConnection, tenant: TenantId, tier: Tier) -> sqlx::Result<Tenant> {
    let row = change_tenant!("tier = $2 where id = $1", tenant.0, tier.as_str()).fetch_one(conn).await?;
    Ok(row.into_tenant())
}

/// Suspends it too, and remembers whether it was. A time that was set before stays if it is sooner.
pub(super) async fn set_delete_at(
    conn: &mut PgConnection,
    tenant: TenantId,
    wait: Duration,
) -> sqlx::Result<Tenant> {
    let row = change_tenant!(
        "active = false, suspended_before = case when delete_at is null then not active else suspended_before end,
             delete_at = least(delete_at, queue.now() + make_interval(secs => $2))
         where id = $1",
        tenant.0,
        wait.as_secs_f64(),
    )
    .fetch_one(conn)
    .await?;
    Ok(row.into_tenant())
}

/// Unless it has begun. Whoever was suspended before is so again.
pub(super) async fn undelete(conn: &mut PgConnection, tenant: TenantId) -> sqlx::Result<Option<Tenant>> {
    let row = change_tenant!(
        "active = not suspended_before, suspended_before = false, delete_at = null
         where id = $1 and deleting_since is null",
        tenant.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(TenantRow::into_tenant))
}

/// Whether its time has come; from then on it can't be taken back.
pub(super) async fn begin_deletion(conn: &mut PgConnection, tenant: TenantId) -> sqlx::Result<bool> {
    let begun = sqlx::query!(
        "update tenants set deleting_since = coalesce(deleting_since, queue.now())
         where id = $1 and not active and (delete_at <= queue.now() or deleting_since is not null)",
        tenant.0,
    )
    .execute(conn)
    .await?;
    Ok(begun.rows_affected() == 1)
}

/// So many at most; answers how many.
pub(super) async fn erase_people(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from users where id = any(array(select id from users where tenant_id = $1 limit $2))",
        tenant.0,
        most,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

pub(super) struct Gone {
    pub name: String,
    pub slug: String,
}

/// `None`: another attempt has.
pub(super) async fn erase(conn: &mut PgConnection, tenant: TenantId) -> sqlx::Result<Option<Gone>> {
    sqlx::query_as!(
        Gone,
        "delete from tenants where id = $1 and deleting_since is not null returning name, slug",
        tenant.0,
    )
    .fetch_optional(conn)
    .await
}
