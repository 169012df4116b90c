use std::time::Duration;

use sqlx::PgConnection;
use streamspace_common::{SignInId, TenantId, UserId};
use uuid::Uuid;

use super::model::{Client, Kind, Method, SignIn};
use crate::opaque::Hash;

/// Notes that sign-ins are used, to five minutes; a browser's goes on from there. What somebody else holds
/// is noted another time. Answers whose they are.
pub(super) async fn touch(
    conn: &mut PgConnection,
    ids: &[Uuid],
    lifetime: Duration,
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "update sign_ins set last_used_at = queue.now(),
                expires_at = case kind when 'browser' then queue.now() + make_interval(secs => $2)
                             else expires_at end
         where id in (select id from sign_ins
                      where id = any($1) and last_used_at < queue.now() - interval '5 minutes'
                      for no key update skip locked)
         returning user_id",
        ids,
        lifetime.as_secs_f64(),
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn touch_people(conn: &mut PgConnection, people: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        "update users set last_active_at = queue.now()
         where id in (select id from users where id = any($1) for no key update skip locked)",
        people,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) struct NewSignIn<'a> {
    pub id: SignInId,
    pub tenant: TenantId,
    pub user: UserId,
    pub method: Method,
    pub client: &'a Client,
    pub hash: &'a Hash,
    pub address: Option<String>,
    pub lifetime: Duration,
    /// What was shown must still hold.
    pub shown: &'a Shown,
}

/// What somebody has shown of an account, some time ago.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// The password of this hash.
    pub password_hash: Option<String>,
    /// That there is no second factor to be shown.
    pub no_second_factor: bool,
}

/// Makes a sign-in, and forgives the person's failures before it where [`Method::forgives`]; `false`: what was shown holds no more.
/// The person is locked, so what ends their sign-ins meanwhile finds this one.
pub(super) async fn insert(conn: &mut PgConnection, new: NewSignIn<'_>) -> sqlx::Result<bool> {
    let made = sqlx::query!(
        "with person as (
             update users set failed_logins = case when $12 then 0 else failed_logins end,
                              locked_until = case when $12 then null else locked_until end,
                              last_login_at = queue.now(), last_active_at = queue.now()
             where tenant_id = $2 and id = $3 and active
               and exists (select from tenants t where t.id = $2 and t.active)
               and ($10::text is null or password_hash = $10) and not ($11 and totp_enabled_at is not null)
             returning tenant_id, id)
         insert into sign_ins (id, tenant_id, user_id, kind, method, secret_hash, device, address,
                               created_at, last_used_at, expires_at)
         select $1, tenant_id, id, $4, $5, $6, $7, $8, queue.now(), queue.now(),
                queue.now() + make_interval(secs => $9) from person",
        new.id.0,
        new.tenant.0,
        new.user.0,
        new.client.kind.as_str(),
        new.method.as_str(),
        new.hash.as_slice(),
        new.client.device(),
        new.address,
        new.lifetime.as_secs_f64(),
        new.shown.password_hash.as_deref(),
        new.shown.no_second_factor,
        new.method.forgives(),
    )
    .execute(conn)
    .await?;
    Ok(made.rows_affected() > 0)
}

pub(super) struct Renewed {
    pub id: SignInId,
    pub tenant: TenantId,
    pub user: UserId,
}

/// Puts a refresh token in the place of another. The person is locked first, as by all that ends sign-ins:
/// of two that come with the same token, the second finds that it was used.
pub(super) async fn renew(
    conn: &mut PgConnection,
    old: &Hash,
    new: &Hash,
    address: Option<&str>,
    lifetime: Duration,
) -> sqlx::Result<Option<Renewed>> {
    sqlx::query!(
        "update users u set last_active_at = queue.now() from sign_ins s, tenants t
         where s.secret_hash = $1 and s.kind = 'tokens' and s.expires_at > queue.now()
           and u.tenant_id = s.tenant_id and u.id = s.user_id and u.active
           and t.id = s.tenant_id and t.active",
        old.as_slice(),
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query_as!(
        Renewed,
        r#"with renewed as (
             update sign_ins s
             set secret_hash = $2, last_used_at = queue.now(), address = coalesce($3, s.address),
                 expires_at = queue.now() + make_interval(secs => $4)
             from users u, tenants t
             where s.secret_hash = $1 and s.kind = 'tokens' and s.expires_at > queue.now()
               and u.tenant_id = s.tenant_id and u.id = s.user_id and u.active
               and t.id = s.tenant_id and t.active
             returning s.id, s.tenant_id, s.user_id),
           used as (
             insert into used_refresh_tokens (secret_hash, tenant_id, sign_in_id, expires_at)
             select $1, tenant_id, id, queue.now() + make_interval(secs => $4) from renewed)
           select id as "id: SignInId", tenant_id as "tenant: TenantId", user_id as "user: UserId" from renewed"#,
        old.as_slice(),
        new.as_slice(),
        address,
        lifetime.as_secs_f64(),
    )
    .fetch_optional(conn)
    .await
}

/// Ends the sign-in of a refresh token that was used before.
pub(super) async fn end_reused(conn: &mut PgConnection, hash: &Hash) -> sqlx::Result<Option<Renewed>> {
    sqlx::query_as!(
        Renewed,
        r#"delete from sign_ins s using used_refresh_tokens r
           where r.secret_hash = $1 and s.tenant_id = r.tenant_id and s.id = r.sign_in_id
           returning s.id as "id: SignInId", s.tenant_id as "tenant: TenantId", s.user_id as "user: UserId""#,
        hash.as_slice(),
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn list(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    after: Option<SignInId>,
    limit: u32,
) -> sqlx::Result<Vec<SignIn>> {
    let rows = sqlx::query!(
        r#"select id as "id: SignInId", kind, method, device, address, created_at, last_used_at, expires_at
           from sign_ins
           where tenant_id = $1 and user_id = $2 and expires_at > queue.now()
             and id < coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
           order by id desc limit $4"#,
        tenant.0,
        user.0,
        after.map(|after| after.0),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| SignIn {
            id: row.id,
            kind: Kind::parse(&row.kind),
            method: Method::parse(&row.method),
            device: row.device,
            address: row.address,
            created_at: row.created_at.to_jiff(),
            last_used_at: row.last_used_at.to_jiff(),
            expires_at: row.expires_at.to_jiff(),
        })
        .collect())
}

/// Whose a browser's is that began so recently, and how.
pub(super) async fn whose(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: SignInId,
    within: Duration,
) -> sqlx::Result<Option<(UserId, Method)>> {
    sqlx::query!(
        r#"select user_id as "user: UserId", method from sign_ins
           where tenant_id = $1 and id = $2 and kind = 'browser' and expires_at > queue.now()
             and created_at > queue.now() - make_interval(secs => $3)"#,
        tenant.0,
        id.0,
        within.as_secs_f64(),
    )
    .map(|row| (row.user, Method::parse(&row.method)))
    .fetch_optional(conn)
    .await
}

/// Whether there was one.
pub(super) async fn end(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    id: SignInId,
) -> sqlx::Result<bool> {
    let ended = sqlx::query!(
        "delete from sign_ins where tenant_id = $1 and user_id = $2 and id = $3",
        tenant.0,
        user.0,
        id.0,
    )
    .execute(conn)
    .await?;
    Ok(ended.rows_affected() > 0)
}

/// All of a person's but one; answers how many.
pub(super) async fn end_all(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    but: Option<SignInId>,
) -> sqlx::Result<u64> {
    let ended = sqlx::query!(
        "with challenges as (delete from sign_in_challenges where tenant_id = $1 and user_id = $2)
         delete from sign_ins where tenant_id = $1 and user_id = $2 and id is distinct from $3",
        tenant.0,
        user.0,
        but.map(|but| but.0),
    )
    .execute(conn)
    .await?;
    Ok(ended.rows_affected())
}

// Second steps --------------------------------------------------------------------------------------

/// For whoever has shown the password of this hash; `false`: it is another by now.
pub(super) async fn insert_challenge(
    conn: &mut PgConnection,
    hash: &Hash,
    tenant: TenantId,
    user: UserId,
    password_hash: &str,
    lifetime: Duration,
) -> sqlx::Result<bool> {
    let made = sqlx::query!(
        "with person as (
             select tenant_id, id from users
             where tenant_id = $2 and id = $3 and active and password_hash = $4 for update)
         insert into sign_in_challenges (secret_hash, tenant_id, user_id, expires_at)
         select $1, tenant_id, id, queue.now() + make_interval(secs => $5) from person",
        hash.as_slice(),
        tenant.0,
        user.0,
        password_hash,
        lifetime.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(made.rows_affected() > 0)
}

// Passwords -----------------------------------------------------------------------------------------

pub(super) async fn password_hash(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<Option<String>> {
    let hash = sqlx::query_scalar!(
        "select password_hash from users where tenant_id = $1 and id = $2",
        tenant.0,
        user.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(hash.flatten())
}

/// `instead_of`: only if that is still the hash.
pub(super) async fn set_password_hash(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    hash: &str,
    instead_of: Option<&str>,
) -> sqlx::Result<bool> {
    let set = sqlx::query!(
        "update users set password_hash = $3, updated_at = now()
         where tenant_id = $1 and id = $2 and ($4::text is null or password_hash = $4)",
        tenant.0,
        user.0,
        hash,
        instead_of,
    )
    .execute(conn)
    .await?;
    Ok(set.rows_affected() > 0)
}

// What is over ----------------------------------------------------------------------------------------

/// Forgets what time has ended, so many rows of each at most; answers whether there may be more.
pub(super) async fn prune(conn: &mut PgConnection, most: i64) -> sqlx::Result<bool> {
    let gone = sqlx::query!(
        r#"with over_sign_ins as (
               delete from sign_ins where id in (
                   select id from sign_ins where expires_at <= queue.now() order by expires_at limit $1
                   for update skip locked) returning 1),
           over_tokens as (
               delete from used_refresh_tokens where secret_hash in (
                   select secret_hash from used_refresh_tokens where expires_at <= queue.now()
                   order by expires_at limit $1 for update skip locked) returning 1),
           over_challenges as (
               delete from sign_in_challenges where secret_hash in (
                   select secret_hash from sign_in_challenges where expires_at <= queue.now()
                   order by expires_at limit $1 for update skip locked) returning 1),
           over_links as (
               delete from mailed_links where secret_hash in (
                   select secret_hash from mailed_links where expires_at <= queue.now() - interval '30 days'
                   order by expires_at limit $1 for update skip locked) returning 1),
           over_failures as (
               delete from sign_in_failures where address in (
                   select address from sign_in_failures where last_at <= queue.now() - interval '2 days'
                   order by last_at limit $1 for update skip locked) returning 1)
           select greatest((select count(*) from over_sign_ins), (select count(*) from over_tokens),
                           (select count(*) from over_challenges), (select count(*) from over_links),
                           (select count(*) from over_failures)) as "most!""#,
        most,
    )
    .fetch_one(conn)
    .await?;
    Ok(gone.most >= most)
}

/// Of a tenant: so many rows of each table at most.
pub(super) async fn erase(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    let before = sqlx::query_scalar!(
        r#"with tokens as (
               delete from used_refresh_tokens where secret_hash in (
                   select secret_hash from used_refresh_tokens where tenant_id = $1 limit $2) returning 1),
           challenges as (
               delete from sign_in_challenges where secret_hash in (
                   select secret_hash from sign_in_challenges where tenant_id = $1 limit $2) returning 1),
           codes as (
               delete from recovery_codes where (tenant_id, user_id, code_hash) in (
                   select tenant_id, user_id, code_hash from recovery_codes where tenant_id = $1 limit $2) returning 1),
           links as (
               delete from mailed_links where secret_hash in (
                   select secret_hash from mailed_links where tenant_id = $1 limit $2) returning 1)
           select (select count(*) from tokens) + (select count(*) from challenges)
                  + (select count(*) from codes) + (select count(*) from links) as "gone!""#,
        tenant.0,
        most,
    )
    .fetch_one(&mut *conn)
    .await?;
    if before > 0 {
        return Ok(before.unsigned_abs());
    }
    let gone = sqlx::query!(
        "delete from sign_ins where id = any(array(select id from sign_ins where tenant_id = $1 limit $2))",
        tenant.0,
        most,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}
