use sqlx::PgConnection;
use streamspace_common::{JobId, Role, TenantId, UserId};

use super::store::role;

/// Disables somebody, to be deleted by this job.
pub(super) async fn begin(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    job: JobId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update users set active = false, deletion_job_id = $3, updated_at = now() where tenant_id = $1 and id = $2",
        tenant.0,
        user.0,
        job.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn job_of(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<Option<JobId>> {
    let job = sqlx::query_scalar!(
        r#"select deletion_job_id as "job: JobId" from users where tenant_id = $1 and id = $2"#,
        tenant.0,
        user.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(job.flatten())
}

pub(super) async fn take_back(conn: &mut PgConnection, tenant: TenantId, user: UserId) -> sqlx::Result<()> {
    sqlx::query!(
        "update users set deletion_job_id = null where tenant_id = $1 and id = $2",
        tenant.0,
        user.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Not as exclusive as a deletion: whoever holds a team and wants to know that its member stays does not
/// wait for us, who may be waiting for the team.
pub(super) async fn leaving(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    job: JobId,
) -> sqlx::Result<Option<Role>> {
    let found = sqlx::query_scalar!(
        "select role from users
         where tenant_id = $1 and id = $2 and not active and deletion_job_id = $3 for no key update",
        tenant.0,
        user.0,
        job.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|found| role(&found)))
}

pub(super) async fn hold(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<Option<Role>> {
    let found = sqlx::query_scalar!(
        "select role from users where tenant_id = $1 and id = $2 and active for share",
        tenant.0,
        user.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|found| role(&found)))
}

pub(super) async fn erase(conn: &mut PgConnection, tenant: TenantId, user: UserId) -> sqlx::Result<()> {
    sqlx::query!("delete from users where tenant_id = $1 and id = $2", tenant.0, user.0)
        .execute(conn)
        .await?;
    Ok(())
}
