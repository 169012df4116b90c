//! What those who operate the installation do to its tenants.
//!
//! Who is suspended is out: people, keys and streams within seconds; jobs and schedules stand still and
//! go on when the tenant does. A deletion suspends at once and waits for days, in which it can be taken
//! back; then a job deletes the tenant in small steps, and from its first step on there is no way back.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use sqlx::PgConnection;
use streamspace_common::{JobId, TenantId};
use streamspace_queue::{self as queue, Options, Tx};

pub use super::tenants_store::Census;
use super::{
    Error, Permission, Require, Tenant, Tier, jobs::DeleteTenant, store as tenant_store,
    tenants_store as store,
};
use crate::audit::{self, Entry};

/// In which a deletion can be taken back.
pub const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
/// The shortest: what is under way when a tenant is suspended has ended by then.
const QUIET: Duration = Duration::from_secs(60);

/// A page of the tenants, oldest first, after the cursor.
pub async fn list(tx: &mut Tx, after: Option<TenantId>, limit: u32) -> Result<Vec<Tenant>, Error> {
    tx.require(Permission::TenantsManage)?;
    Ok(store::list(tx.conn().await?, after, limit).await?)
}

/// One, with who is in it.
pub async fn show(tx: &mut Tx, slug: &str) -> Result<(Tenant, Census), Error> {
    tx.require(Permission::TenantsManage)?;
    let conn = tx.conn().await?;
    let tenant = tenant_store::tenant_by_slug(conn, slug).await?;
    let census = store::census(conn, tenant.id).await?;
    Ok((tenant, census))
}

pub async fn suspend(tx: &mut Tx, slug: &str) -> Result<Tenant, Error> {
    set_active(tx, slug, false).await
}

pub async fn resume(tx: &mut Tx, slug: &str) -> Result<Tenant, Error> {
    set_active(tx, slug, true).await
}

async fn set_active(tx: &mut Tx, slug: &str, active: bool) -> Result<Tenant, Error> {
    let before = lock(tx, slug).await?;
    if before.active == active {
        return Ok(before);
    }
    if before.delete_at.is_some() {
        return Err(Error::ToBeDeleted);
    }
    let after = store::set_active(tx.conn().await?, before.id, active).await?;
    queue::tenants::changed(tx).await?;
    let action = if active { "tenants.resume" } else { "tenants.suspend" };
    record(tx, action, &before, &after).await?;
    Ok(after)
}

pub async fn set_tier(tx: &mut Tx, slug: &str, tier: Tier) -> Result<Tenant, Error> {
    let before = lock(tx, slug).await?;
    let after = store::set_tier(tx.conn().await?, before.id, tier).await?;
    if before.tier != after.tier {
        record(tx, "tenants.set_tier", &before, &after).await?;
    }
    Ok(after)
}

/// Suspends a tenant and has it deleted: after the grace, or `now`. Asked for again, it happens no later
/// than before, and by a new job, should the other be lost.
pub async fn delete(tx: &mut Tx, slug: &str, now: bool) -> Result<(Tenant, Timestamp, JobId), Error> {
    let before = lock(tx, slug).await?;
    let wait = if now { QUIET } else { GRACE };
    let after = store::set_delete_at(tx.conn().await?, before.id, wait).await?;
    let at = after.delete_at.unwrap_or(after.updated_at);
    queue::tenants::changed(tx).await?;
    let job = DeleteTenant { tenant: after.id };
    let job = queue::enqueue_with(tx, job, Options { run_at: Some(at), ..Options::default() }).await?.id;
    record(tx, "tenants.delete", &before, &after).await?;
    Ok((after, at, job))
}

/// Brings a tenant back that is to be deleted, as it was before. Its job finds nothing to do.
pub async fn undelete(tx: &mut Tx, slug: &str) -> Result<Tenant, Error> {
    let before = lock(tx, slug).await?;
    if before.delete_at.is_none() {
        return Err(Error::NotToBeDeleted);
    }
    let after = store::undelete(tx.conn().await?, before.id).await?.ok_or(Error::DeletionBegan)?;
    queue::tenants::changed(tx).await?;
    record(tx, "tenants.undelete", &before, &after).await?;
    Ok(after)
}

/// Begins with a deletion whose time has come, or goes on with it. `false`: it was taken back, its time
/// has not come, or nothing is left.
pub(super) async fn begin_deletion(tx: &mut Tx, tenant: TenantId) -> Result<bool, Error> {
    Ok(store::begin_deletion(tx.conn().await?, tenant).await?)
}

/// The people of a tenant that goes, so many at most; answers how many.
pub(super) async fn erase_people(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    store::erase_people(conn, tenant, most).await
}

/// The last of it: its row. Its audit stays until its months are dropped; that it is gone stands in the
/// installation's.
pub(super) async fn erase(tx: &mut Tx, tenant: TenantId, rows: u64) -> Result<(), Error> {
    let Some(gone) = store::erase(tx.conn().await?, tenant).await? else { return Ok(()) };
    let erased = Entry::new("tenants.erase", "tenant", tenant)
        .before(json!({ "name": gone.name, "slug": gone.slug }))
        .after(json!({ "rows": rows }));
    Ok(audit::record(tx, erased).await?)
}

/// The tenant of a slug, until the commit nobody else's to change.
async fn lock(tx: &mut Tx, slug: &str) -> Result<Tenant, Error> {
    tx.require(Permission::TenantsManage)?;
    let conn = tx.conn().await?;
    let tenant = tenant_store::tenant_by_slug(conn, slug).await?;
    tenant_store::lock_tenant(conn, tenant.id).await
}

async fn record(tx: &mut Tx, action: &'static str, before: &Tenant, after: &Tenant) -> Result<(), Error> {
    let shown = |tenant: &Tenant| json!({ "tier": tenant.tier, "active": tenant.active, "deleteAt": tenant.delete_at });
    let entry = Entry::new(action, "tenant", after.id).before(shown(before)).after(shown(after));
    Ok(audit::record_in(tx, after.id, entry).await?)
}
