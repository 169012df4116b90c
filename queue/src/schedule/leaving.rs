//! Schedules of somebody who leaves.

use streamspace_common::{ScheduleId, TenantId, UserId};

use crate::tx::Tx;

/// A schedule that has another owner now.
#[derive(Clone, Debug)]
pub struct HandedOver {
    pub id: ScheduleId,
    pub name: String,
    pub paused: bool,
}

/// Gives all schedules of a person to another, whose rights their jobs have from then on; `paused`: they
/// start nothing until somebody resumes them.
pub async fn hand_over(
    tx: &mut Tx,
    tenant: TenantId,
    from: UserId,
    to: UserId,
    paused: bool,
) -> sqlx::Result<Vec<HandedOver>> {
    sqlx::query_as!(
        HandedOver,
        r#"update schedules set user_id = $3, paused = paused or $4,
                  next_at = case when not $4 then next_at end, fire_at = case when not $4 then fire_at end,
                  row_version = row_version + 1, updated_at = queue.now()
           where tenant_id = $1 and user_id = $2
           returning id as "id: ScheduleId", name, paused"#,
        tenant.0,
        from.0,
        to.0,
        paused,
    )
    .fetch_all(tx.conn().await?)
    .await
}

/// Deletes them; answers which they were.
pub async fn delete_of(
    tx: &mut Tx,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<Vec<(ScheduleId, String)>> {
    let gone = sqlx::query!(
        r#"delete from schedules where tenant_id = $1 and user_id = $2 returning id as "id: ScheduleId", name"#,
        tenant.0,
        user.0,
    )
    .fetch_all(tx.conn().await?)
    .await?;
    Ok(gone.into_iter().map(|row| (row.id, row.name)).collect())
}
