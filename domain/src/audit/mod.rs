//! The audit: who changed what, written in the transaction of the change. A change that commits is
//! in it, one that rolls back is not. The application's database role can only add to it.

mod mask;
mod store;

use serde_json::Value;
use streamspace_common::TenantId;
use streamspace_queue::Tx;

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
