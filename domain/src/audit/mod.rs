//! The audit: who changed what, written in the transaction of the change. A change that commits is
//! in it, one that rolls back is not. The application's database role can only add to it, and seconds
//! later a row is sealed into its tenant's chain of hashes.

pub mod jobs;
mod mask;
mod model;
mod seal;
mod store;
mod verify;

use serde_json::Value;
use sqlx::PgConnection;
use streamspace_common::{Actor, TenantId};
use streamspace_queue::Tx;
use uuid::Uuid;

pub use self::{
    jobs::Kept,
    model::{Error, Filter, Page, Record},
    seal::seal,
    verify::{Breach, Chain, Report, verify},
};
use crate::identity::{Permission, Require};

/// One change, as the operation that made it tells it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `<slice>.<verb>`: `api_keys.create`.
    pub action: &'static str,
    pub resource_type: &'static str,
    pub resource_id: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl Entry {
    pub fn new(action: &'static str, resource_type: &'static str, resource_id: impl ToString) -> Self {
        Self { action, resource_type, resource_id: resource_id.to_string(), before: None, after: None }
    }

    #[must_use]
    pub fn before(self, before: Value) -> Self {
        Self { before: Some(before), ..self }
    }

    #[must_use]
    pub fn after(self, after: Value) -> Self {
        Self { after: Some(after), ..self }
    }
}

/// Records a change in the tenant of whoever makes it. Secrets in it are masked by their names.
pub async fn record(tx: &mut Tx, entry: Entry) -> sqlx::Result<()> {
    let tenant = tx.tenant();
    record_in(tx, tenant, entry).await
}

/// Records a change that the installation makes in another tenant.
pub(crate) async fn record_in(tx: &mut Tx, tenant: TenantId, mut entry: Entry) -> sqlx::Result<()> {
    [&mut entry.before, &mut entry.after].into_iter().flatten().for_each(mask::mask);
    store::insert(tx, tenant, entry).await
}

/// What a filter looks at in one go: one that matches little does not make a page slow.
const SCAN: i64 = 5000;

/// A page of the tenant's records, newest first, before the cursor.
pub async fn list(
    conn: &mut PgConnection,
    actor: &Actor,
    filter: &Filter,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Page, Error> {
    actor.require(Permission::AuditRead)?;
    let limit = i64::from(limit);
    let scan = if filter.is_empty() { limit + 1 } else { SCAN };
    let mut records = store::newest(conn, actor.tenant, filter, before, scan, limit + 1).await?;
    let next = if records.len() as i64 > limit {
        records.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        records.last().map(|record| record.id)
    } else if filter.is_empty() {
        None
    } else {
        store::last_of_scan(conn, actor.tenant, filter, before, scan).await?
    };
    Ok(Page { records, next })
}

/// Records of an export in one go.
pub const CHUNK: i64 = 1000;

/// The next records of an export, oldest first, after the cursor, with where the one after begins. No
/// connection is held between two.
pub async fn export(
    conn: &mut PgConnection,
    actor: &Actor,
    filter: &Filter,
    after: Option<Uuid>,
) -> Result<Page, Error> {
    actor.require(Permission::AuditRead)?;
    let scan = if filter.is_empty() { CHUNK } else { SCAN };
    let records = store::oldest(conn, actor.tenant, filter, after, scan, CHUNK).await?;
    let next = if records.len() as i64 == CHUNK {
        records.last().map(|record| record.id)
    } else {
        store::end_of_scan(conn, actor.tenant, filter, after, scan).await?
    };
    Ok(Page { records, next })
}
