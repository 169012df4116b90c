use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::Value;
use sqlx::PgConnection;
use streamspace_common::{Creator, TenantId};
use uuid::Uuid;

/// What a tenant said of a key.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    /// `None`: the default holds.
    pub value: Option<Value>,
    pub updated_at: Option<Timestamp>,
    pub updated_by: Option<Creator>,
}

struct Row {
    key: String,
    value: Option<Value>,
    updated_at: Option<jiff_sqlx::Timestamp>,
    updater_type: Option<String>,
    updater_id: Option<Uuid>,
}

impl Row {
    fn into_stored(self) -> Stored {
        Stored {
            value: self.value,
            updated_at: self.updated_at.map(|at| at.to_jiff()),
            updated_by: self.updater_type.map(|kind| Creator::from_columns(&kind, self.updater_id)),
        }
    }
}

/// There are no more than keys are known.
pub(super) async fn all(conn: &mut PgConnection, tenant: TenantId) -> sqlx::Result<HashMap<String, Stored>> {
    let rows = sqlx::query_as!(
        Row,
        "select key, value, updated_at, updater_type, updater_id from settings where tenant_id = $1",
        tenant.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.key.clone(), row.into_stored())).collect())
}

pub(super) async fn get(
    conn: &mut PgConnection,
    tenant: TenantId,
    key: &str,
) -> sqlx::Result<Option<Stored>> {
    let row = sqlx::query_as!(
        Row,
        "select key, value, updated_at, updater_type, updater_id from settings
         where tenant_id = $1 and key = $2",
        tenant.0,
        key,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Row::into_stored))
}

/// The same, locked until the commit; what was never set gets a row to lock.
pub(super) async fn lock(conn: &mut PgConnection, tenant: TenantId, key: &str) -> sqlx::Result<Stored> {
    sqlx::query!(
        "insert into settings (tenant_id, key) values ($1, $2) on conflict (tenant_id, key) do nothing",
        tenant.0,
        key,
    )
    .execute(&mut *conn)
    .await?;
    let row = sqlx::query_as!(
        Row,
        "select key, value, updated_at, updater_type, updater_id from settings
         where tenant_id = $1 and key = $2 for update",
        tenant.0,
        key,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.into_stored())
}

pub(super) async fn set(
    conn: &mut PgConnection,
    tenant: TenantId,
    key: &str,
    value: Option<Value>,
    by: Creator,
) -> sqlx::Result<Stored> {
    let (updater_type, updater_id) = by.columns();
    let row = sqlx::query_as!(
        Row,
        "update settings set value = $3, updated_at = now(), updater_type = $4, updater_id = $5
         where tenant_id = $1 and key = $2
         returning key, value, updated_at, updater_type, updater_id",
        tenant.0,
        key,
        value,
        updater_type,
        updater_id,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.into_stored())
}

pub(super) async fn erase(conn: &mut PgConnection, tenant: TenantId) -> sqlx::Result<u64> {
    let gone = sqlx::query!("delete from settings where tenant_id = $1", tenant.0).execute(conn).await?;
    Ok(gone.rows_affected())
}
