use streamspace_common::TenantId;
use streamspace_queue::Tx;
use uuid::Uuid;

use super::Entry;

pub(super) async fn insert(tx: &mut Tx, tenant: TenantId, entry: Entry) -> sqlx::Result<()> {
    let actor = tx.actor().clone();
    let request = tx.request().clone();
    let (actor_type, actor_id) = actor.by.columns();
    sqlx::query!(
        "insert into audit (id, tenant_id, user_id, actor_type, actor_id, action, resource_type,
                            resource_id, before, after, ip, request_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        Uuid::now_v7(),
        tenant.0,
        actor.user.map(|user| user.0),
        actor_type,
        actor_id,
        entry.action,
        entry.resource_type,
        entry.resource_id,
        entry.before,
        entry.after,
        request.address.map(|address| address.to_string()),
        request.id,
    )
    .execute(tx.conn().await?)
    .await?;
    Ok(())
}
