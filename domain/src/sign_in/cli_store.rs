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
    /// Whose person has said yes.
    pub browser: SignInId,
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
        r#"delete from cli_requests r where r.secret_hash = $1 and r.allowed
           returning r.tenant_id as "tenant: TenantId", r.user_id as "user: UserId", r.sign_in_id as "browser: SignInId",
                     r.redirect_uri = $2 and r.challenge = $3 as "fits!",
                     r.expires_at > queue.now() as "is_fresh!""#,
        code.as_slice(),
        wanted.redirect_uri,
        wanted.challenge.as_slice(),
    )
    .fetch_optional(conn)
    .await
}

/// Notes how the browser had signed in of the program that it let in; `false`: its sign-in is over.
pub(super) async fn follow(
    conn: &mut PgConnection,
    tenant: TenantId,
    program: SignInId,
    browser: SignInId,
) -> sqlx::Result<bool> {
    let noted = sqlx::query!(
        "update sign_ins p set browser_method = b.method from sign_ins b
         where p.tenant_id = $1 and p.id = $2 and b.tenant_id = $1 and b.id = $3",
        tenant.0,
        program.0,
        browser.0,
    )
    .execute(conn)
    .await?;
    Ok(noted.rows_affected() > 0)
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
