use std::time::Duration;

use sqlx::PgConnection;
use streamspace_common::{TenantId, UserId};
use uuid::Uuid;

use super::lockout::{LONGEST, Rules};

/// An account against which an attempt was counted.
#[derive(Clone)]
pub(super) struct Candidate {
    pub tenant: TenantId,
    pub slug: String,
    pub user: UserId,
    pub password_hash: Option<String>,
    pub has_second_factor: bool,
    /// A link of ours was used that went to this address.
    pub is_proven: bool,
    /// It closed the account for whoever comes after it.
    pub closes: bool,
}

/// Counts an attempt against every open account of this address, so many at most.
pub(super) async fn attempt(
    conn: &mut PgConnection,
    email: &str,
    slug: Option<&str>,
    most: i64,
    rules: Rules,
) -> sqlx::Result<Vec<Candidate>> {
    let rows = sqlx::query!(
        r#"with open as (
               select u.tenant_id, u.id, t.slug from users u join tenants t on t.id = u.tenant_id
               where lower(u.email) = lower($1) and ($2::text is null or t.slug = $2)
                 and u.active and t.active and u.password_hash is not null
                 and (u.locked_until is null or u.locked_until <= queue.now())
               order by u.id limit $3 for update of u)
           update users u
           set failed_logins = u.failed_logins + 1,
               locked_until = case when (u.failed_logins + 1) % $4 = 0
                              then queue.now() + least($6::float8, $5 * 2 ^ least((u.failed_logins + 1) / $4 - 1, 30)) * interval '1 s' end
           from open where u.tenant_id = open.tenant_id and u.id = open.id
           returning u.tenant_id as "tenant: TenantId", open.slug, u.id as "user: UserId", u.password_hash,
                     u.totp_enabled_at is not null as "has_second_factor!",
                     u.email_proven_at is not null as "is_proven!", u.locked_until is not null as "closes!""#,
        email,
        slug,
        most,
        i32::try_from(rules.account).unwrap_or(i32::MAX),
        rules.first.as_secs_f64(),
        LONGEST.as_secs_f64(),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Candidate {
            tenant: row.tenant,
            slug: row.slug,
            user: row.user,
            password_hash: row.password_hash,
            has_second_factor: row.has_second_factor,
            is_proven: row.is_proven,
            closes: row.closes,
        })
        .collect())
}

/// Counts one against an account whose password was shown before: it tries a second factor.
pub(super) async fn attempt_of(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    rules: Rules,
) -> sqlx::Result<Option<bool>> {
    sqlx::query_scalar!(
        r#"update users u
           set failed_logins = u.failed_logins + 1,
               locked_until = case when (u.failed_logins + 1) % $3 = 0
                              then queue.now() + least($5::float8, $4 * 2 ^ least((u.failed_logins + 1) / $3 - 1, 30)) * interval '1 s' end
           where u.tenant_id = $1 and u.id = $2 and u.active
             and (u.locked_until is null or u.locked_until <= queue.now())
           returning u.locked_until is not null as "closes!""#,
        tenant.0,
        user.0,
        i32::try_from(rules.account).unwrap_or(i32::MAX),
        rules.first.as_secs_f64(),
        LONGEST.as_secs_f64(),
    )
    .fetch_optional(conn)
    .await
}

/// Accounts of this address that failures have closed: what is tried against them is not looked at.
pub(super) async fn closed(
    conn: &mut PgConnection,
    email: &str,
    slug: Option<&str>,
    most: i64,
) -> sqlx::Result<Vec<(TenantId, UserId)>> {
    let rows = sqlx::query!(
        r#"select u.tenant_id as "tenant: TenantId", u.id as "user: UserId"
           from users u join tenants t on t.id = u.tenant_id
           where lower(u.email) = lower($1) and ($2::text is null or t.slug = $2)
             and u.active and t.active and u.locked_until > queue.now()
           order by u.id limit $3"#,
        email,
        slug,
        most,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.tenant, row.user)).collect())
}

/// Takes an attempt back that was none: of whose password fits elsewhere, or waits for a second factor.
pub(super) async fn give_back(conn: &mut PgConnection, users: &[Uuid], rules: Rules) -> sqlx::Result<()> {
    sqlx::query!(
        "with held as (select tenant_id, id from users where id = any($1) order by id for update)
         update users u set failed_logins = greatest(u.failed_logins - 1, 0),
                locked_until = case when u.failed_logins % $2 = 0 then null else u.locked_until end
         from held where u.tenant_id = held.tenant_id and u.id = held.id",
        users,
        i32::try_from(rules.account).unwrap_or(i32::MAX),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Of the hashes that an import brought and nobody has signed in with since.
pub(super) async fn highest_bcrypt_cost(conn: &mut PgConnection) -> sqlx::Result<Option<u32>> {
    let cost = sqlx::query_scalar!(
        r#"select max(substring(password_hash from '^\$2[a-z]\$([0-9]{2})\$')::integer)
           from users where password_hash like '$2%'"#,
    )
    .fetch_one(conn)
    .await?;
    Ok(cost.and_then(|cost| cost.try_into().ok()))
}

/// `Some`: failures have closed it to this address, for so long.
pub(super) async fn closed_to(conn: &mut PgConnection, address: &str) -> sqlx::Result<Option<Duration>> {
    let left = sqlx::query_scalar!(
        r#"select extract(epoch from locked_until - queue.now())::float8 as "left!" from sign_in_failures
           where address = $1 and locked_until > queue.now()"#,
        address,
    )
    .fetch_optional(conn)
    .await?;
    Ok(left.map(Duration::from_secs_f64))
}

/// Answers whether there was anything to forgive.
pub(super) async fn forgive(conn: &mut PgConnection, addresses: &[String]) -> sqlx::Result<bool> {
    let gone = sqlx::query!("delete from sign_in_failures where address = any($1)", addresses);
    Ok(gone.execute(conn).await?.rows_affected() > 0)
}

/// Counts a failure of an address. An hour without one is forgiven.
pub(super) async fn fail_from(conn: &mut PgConnection, address: &str, rules: Rules) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into sign_in_failures as f (address, failures, last_at) values ($1, 1, queue.now())
         on conflict (address) do update
             set last_at = queue.now(),
                 (failures, locked_until) = (
                     select n, case when n % $2 = 0
                               then queue.now() + least($4::float8, $3 * 2 ^ least(n / $2 - 1, 30)) * interval '1 s' end
                     from (select case when greatest(f.last_at, f.locked_until) < queue.now() - interval '1 hour'
                                  then 1 else f.failures + 1 end as n) counted)
             where f.locked_until is null or f.locked_until <= queue.now()",
        address,
        i32::try_from(rules.address).unwrap_or(i32::MAX),
        rules.first.as_secs_f64(),
        LONGEST.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
