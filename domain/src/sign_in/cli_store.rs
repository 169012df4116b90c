use std::time::Duration;

use sqlx::PgConnection;
use streamspace_common::{SignInId, TenantId, UserId};

use super::cli::Wanted;
use crate::opaque::Hash;

/// In the place of what this sign-in's person was asked before.
pub(super) async fn ask(
    conn: &mut PgConnection,
    hash: &Hash,
    tenant: TenantId,
    user: UserId,
    sign_in: SignInId,
    wanted: &Wanted,
    lifetime: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into cli_requests (secret_hash, tenant_id, user_id, sign_in_id, redirect_uri, challenge, expires_at)
         values ($1, $2, $3, $4, $5, $6, queue.now() + make_interval(secs => $7))
         on conflict (tenant_id, sign_in_id) where not allowed do update
             set secret_hash = excluded.secret_hash, redirect_uri = excluded.redirect_uri,
                 challenge = excluded.challenge, expires_at = excluded.expires_at",
        hash.as_slice(),
        tenant.0,
        user.0,
        sign_in.0,
        wanted.redirect_uri,
        wanted.challenge.as_slice(),
        lifetime.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Puts the code in the question's place; `false`: nothing of the kind is asked. The row's lock decides
/// between two that say yes at once.
pub(super) async fn allow(
    conn: &mut PgConnection,
    yes: &Hash,
    code: &Hash,
    tenant: TenantId,
    sign_in: SignInId,
    wanted: &Wanted,
    lifetime: Duration,
) -> sqlx::Result<bool> {
    let allowed = sqlx::query!(
        "update cli_requests
         set allowed = true, secret_hash = $2, expires_at = queue.now() + make_interval(secs => $7)
         where secret_hash = $1 and not allowed and tenant_id = $3 and sign_in_id = $4
           and redirect_uri = $5 and challenge = $6 and expires_at > queue.now()",
        yes.as_slice(),
        code.as_slice(),
        tenant.0,
        sign_in.0,
        wanted.redirect_uri,
        wanted.challenge.as_slice(),
        lifetime.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(allowed.rows_affected() > 0)
}

pub(super) struct Taken {
    pub tenant: TenantId,
    pub user: UserId,
    /// How the browser had signed in.
    pub method: String,
    /// Whoever comes with the code has asked for it.
    pub fits: bool,
    pub is_fresh: bool,
}

/// The delete decides who takes it: of two that come at once, one finds nothing.
pub(super) async fn take(
    conn: &mut PgConnection,
    code: &Hash,
    wanted: &Wanted,
) -> sqlx::Result<Option<Taken>> {
    sqlx::query_as!(
        Taken,
        r#"delete from cli_requests r using sign_ins s
           where r.secret_hash = $1 and r.allowed and s.tenant_id = r.tenant_id and s.id = r.sign_in_id
           returning r.tenant_id as "tenant: TenantId", r.user_id as "user: UserId", s.method,
                     r.redirect_uri = $2 and r.challenge = $3 as "fits!",
                     r.expires_at > queue.now() as "is_fresh!""#,
        code.as_slice(),
        wanted.redirect_uri,
        wanted.challenge.as_slice(),
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn note_browser(
    conn: &mut PgConnection,
    tenant: TenantId,
    sign_in: SignInId,
    method: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update sign_ins set browser_method = $3 where tenant_id = $1 and id = $2",
        tenant.0,
        sign_in.0,
        method,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets what was not answered or not exchanged in time; answers whether there may be more.
pub(super) async fn prune(conn: &mut PgConnection, most: i64) -> sqlx::Result<bool> {
    let gone = sqlx::query!(
        "delete from cli_requests where secret_hash in (
             select secret_hash from cli_requests where expires_at <= queue.now()
             order by expires_at limit $1 for update skip locked)",
        most,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected() >= most.unsigned_abs())
}
