use std::time::Duration;

use sqlx::PgConnection;
use streamspace_common::{Sealed, SignInId, TenantId, UserId};

use crate::{identity, opaque::Hash};

/// A person's second factor, as far as there is one.
pub(super) struct Factor {
    pub secret: Option<Sealed>,
    pub is_enabled: bool,
}

/// Locked until the commit.
pub(super) async fn lock(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> Result<Factor, identity::Error> {
    sqlx::query_as!(
        Factor,
        r#"select totp_secret as "secret: Sealed", totp_enabled_at is not null as "is_enabled!"
           from users where tenant_id = $1 and id = $2 for update"#,
        tenant.0,
        user.0,
    )
    .fetch_optional(conn)
    .await?
    .ok_or(identity::Error::NoUser)
}

/// Whether somebody signed in by this sign-in within that time. A program's does not count: the browser that
/// let it in may have been left open.
pub(super) async fn began_lately(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    id: SignInId,
    lately: Duration,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from sign_ins
               where tenant_id = $1 and user_id = $2 and id = $3 and method <> 'cli'
                 and created_at > queue.now() - make_interval(secs => $4)) as "lately!""#,
        tenant.0,
        user.0,
        id.0,
        lately.as_secs_f64(),
    )
    .fetch_one(conn)
    .await
}

/// Another secret in the place of one that is not on; `false`: one is.
pub(super) async fn begin(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    secret: Sealed,
) -> sqlx::Result<bool> {
    let begun = sqlx::query!(
        "update users set totp_secret = $3, totp_step = 0
         where tenant_id = $1 and id = $2 and totp_enabled_at is null",
        tenant.0,
        user.0,
        secret as _,
    )
    .execute(conn)
    .await?;
    Ok(begun.rows_affected() > 0)
}

pub(super) async fn enable(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    step: i64,
    recovery: &[Hash],
) -> sqlx::Result<()> {
    let hashes: Vec<Vec<u8>> = recovery.iter().map(|hash| hash.to_vec()).collect();
    sqlx::query!(
        "with old as (delete from recovery_codes where tenant_id = $1 and user_id = $2),
              enabled as (
             update users set totp_enabled_at = queue.now(), totp_step = $3, updated_at = now()
             where tenant_id = $1 and id = $2)
         insert into recovery_codes (tenant_id, user_id, code_hash) select $1, $2, unnest($4::bytea[])",
        tenant.0,
        user.0,
        step,
        &hashes,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn disable(conn: &mut PgConnection, tenant: TenantId, user: UserId) -> sqlx::Result<()> {
    sqlx::query!(
        "with old as (delete from recovery_codes where tenant_id = $1 and user_id = $2)
         update users set totp_enabled_at = null, totp_secret = null, totp_step = 0, updated_at = now()
         where tenant_id = $1 and id = $2",
        tenant.0,
        user.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether its code was not used yet, nor one after it.
pub(super) async fn use_step(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    step: i64,
) -> sqlx::Result<bool> {
    let used = sqlx::query!(
        "update users set totp_step = $3 where tenant_id = $1 and id = $2 and totp_step < $3",
        tenant.0,
        user.0,
        step,
    )
    .execute(conn)
    .await?;
    Ok(used.rows_affected() > 0)
}

/// Whether it was there; it is no more.
pub(super) async fn use_recovery_code(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    hash: &Hash,
) -> sqlx::Result<bool> {
    let used = sqlx::query!(
        "delete from recovery_codes r using users u
         where r.tenant_id = $1 and r.user_id = $2 and r.code_hash = $3
           and u.tenant_id = r.tenant_id and u.id = r.user_id and u.totp_enabled_at is not null",
        tenant.0,
        user.0,
        hash.as_slice(),
    )
    .execute(conn)
    .await?;
    Ok(used.rows_affected() > 0)
}

pub(super) struct Known {
    pub tenant: TenantId,
    pub user: UserId,
}

/// Whose challenge it is.
pub(super) async fn whose_challenge(conn: &mut PgConnection, hash: &Hash) -> sqlx::Result<Option<Known>> {
    sqlx::query_as!(
        Known,
        r#"select c.tenant_id as "tenant: TenantId", c.user_id as "user: UserId"
           from sign_in_challenges c
           join users u on u.tenant_id = c.tenant_id and u.id = c.user_id and u.active
           join tenants t on t.id = c.tenant_id and t.active
           where c.secret_hash = $1 and c.expires_at > queue.now()"#,
        hash.as_slice(),
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn end_challenge(conn: &mut PgConnection, hash: &Hash) -> sqlx::Result<()> {
    sqlx::query!("delete from sign_in_challenges where secret_hash = $1", hash.as_slice())
        .execute(conn)
        .await?;
    Ok(())
}
