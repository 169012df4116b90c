use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::{Actor, Creator, Sealed, SignInId, TenantId, UserId};
use uuid::Uuid;

use super::{
    lockout::{LONGEST, Rules},
    model::{Client, Kind, Method, SignIn},
};
use crate::{
    api_keys::Scopes,
    callers::{Checked, Credential},
    identity::store::role,
    opaque::Hash,
    settings,
};

// Whoever comes -----------------------------------------------------------------------------------

struct CallerRow {
    id: SignInId,
    tenant_id: TenantId,
    user_id: UserId,
    kind: String,
    role: String,
    platform: bool,
    must_enrol: bool,
}

impl CallerRow {
    fn into_checked(self) -> Checked {
        Checked {
            credential: Credential::SignIn(self.id),
            actor: Actor {
                tenant: self.tenant_id,
                by: Creator::User(self.user_id),
                user: Some(self.user_id),
                key: None,
                role: role(&self.role),
                platform: self.platform,
            },
            scopes: Scopes::all(),
            hourly_limit: None,
            by_cookie: Kind::parse(&self.kind) == Kind::Browser,
            expires_at: None,
            must_enrol: self.must_enrol,
        }
    }
}

/// Who comes with the cookie of this hash, if they may come now.
pub(crate) async fn by_cookie(
    conn: &mut PgConnection,
    hash: &Hash,
    mfa: bool,
) -> sqlx::Result<Option<Checked>> {
    let row = sqlx::query_as!(
        CallerRow,
        r#"select s.id as "id: SignInId", s.tenant_id as "tenant_id: TenantId", s.user_id as "user_id: UserId",
                  s.kind, u.role, u.platform_admin as platform,
                  (coalesce(s.browser_method, s.method) in ('password', 'invitation', 'registration') and u.totp_enabled_at is null
                   and coalesce(m.value = 'true'::jsonb, $2)) as "must_enrol!"
           from sign_ins s
           join tenants t on t.id = s.tenant_id and t.active
           join users u on u.tenant_id = s.tenant_id and u.id = s.user_id and u.active
           left join settings m on m.tenant_id = s.tenant_id and m.key = $3
           where s.secret_hash = $1 and s.kind = 'browser' and s.expires_at > queue.now()"#,
        hash.as_slice(),
        mfa,
        settings::MFA_REQUIRED.key,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(CallerRow::into_checked))
}

/// The same by the sign-in that an access token names.
pub(crate) async fn by_id(conn: &mut PgConnection, id: SignInId, mfa: bool) -> sqlx::Result<Option<Checked>> {
    Ok(by_ids(conn, &[id.0], mfa).await?.pop())
}

/// The same for many: whoever is missing may not come any more.
pub(crate) async fn by_ids(conn: &mut PgConnection, ids: &[Uuid], mfa: bool) -> sqlx::Result<Vec<Checked>> {
    let rows = sqlx::query_as!(
        CallerRow,
        r#"select s.id as "id: SignInId", s.tenant_id as "tenant_id: TenantId", s.user_id as "user_id: UserId",
                  s.kind, u.role, u.platform_admin as platform,
                  (coalesce(s.browser_method, s.method) in ('password', 'invitation', 'registration') and u.totp_enabled_at is null
                   and coalesce(m.value = 'true'::jsonb, $2)) as "must_enrol!"
           from sign_ins s
           join tenants t on t.id = s.tenant_id and t.active
           join users u on u.tenant_id = s.tenant_id and u.id = s.user_id and u.active
           left join settings m on m.tenant_id = s.tenant_id and m.key = $3
           where s.id = any($1) and s.expires_at > queue.now()"#,
        ids,
        mfa,
        settings::MFA_REQUIRED.key,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(CallerRow::into_checked).collect())
}

/// Notes that sign-ins are used, to five minutes; a browser's goes on from there.
pub(super) async fn touch(conn: &mut PgConnection, ids: &[Uuid], lifetime: Duration) -> sqlx::Result<()> {
    sqlx::query!(
        "with touched as (
             update sign_ins set last_used_at = queue.now(),
                    expires_at = case kind when 'browser' then queue.now() + make_interval(secs => $2)
                                 else expires_at end
             where id = any($1) and last_used_at < queue.now() - interval '5 minutes'
             returning tenant_id, user_id)
         update users u set last_active_at = queue.now() from touched
         where u.tenant_id = touched.tenant_id and u.id = touched.user_id",
        ids,
        lifetime.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

// Attempts ----------------------------------------------------------------------------------------

/// An account against which an attempt was counted.
pub(super) struct Candidate {
    pub tenant: TenantId,
    pub slug: String,
    pub user: UserId,
    pub password_hash: Option<String>,
    pub has_second_factor: bool,
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
                     u.totp_enabled_at is not null as "has_second_factor!", u.locked_until is not null as "closes!""#,
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

/// Takes an attempt back that was none: of whose password fits elsewhere, or waits for a second factor.
pub(super) async fn give_back(conn: &mut PgConnection, users: &[Uuid], rules: Rules) -> sqlx::Result<()> {
    sqlx::query!(
        "update users set failed_logins = greatest(failed_logins - 1, 0),
                locked_until = case when failed_logins % $2 = 0 then null else locked_until end
         where id = any($1)",
        users,
        i32::try_from(rules.account).unwrap_or(i32::MAX),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Counts an attempt from an address. `Some`: it is closed, for so long. An hour without a failure is
/// forgiven.
pub(super) async fn attempt_from(
    conn: &mut PgConnection,
    address: &str,
    rules: Rules,
) -> sqlx::Result<Option<Duration>> {
    let open = sqlx::query!(
        "insert into sign_in_failures as f (address, failures, last_at) values ($1, 1, queue.now())
         on conflict (address) do update
             set last_at = queue.now(),
                 (failures, locked_until) = (
                     select n, case when n % $2 = 0
                               then queue.now() + least($4::float8, $3 * 2 ^ least(n / $2 - 1, 30)) * interval '1 s' end
                     from (select case when greatest(f.last_at, f.locked_until) < queue.now() - interval '1 hour'
                                  then 1 else f.failures + 1 end as n) counted)
             where f.locked_until is null or f.locked_until <= queue.now()
         returning 1 as one",
        address,
        i32::try_from(rules.address).unwrap_or(i32::MAX),
        rules.first.as_secs_f64(),
        LONGEST.as_secs_f64(),
    )
    .fetch_optional(&mut *conn)
    .await?;
    if open.is_some() {
        return Ok(None);
    }
    let left = sqlx::query_scalar!(
        r#"select extract(epoch from locked_until - queue.now())::float8 as "left!" from sign_in_failures
           where address = $1 and locked_until > queue.now()"#,
        address,
    )
    .fetch_optional(conn)
    .await?;
    Ok(left.map(Duration::from_secs_f64))
}

/// Takes it back: it was no failure.
pub(super) async fn give_back_from(conn: &mut PgConnection, address: &str, rules: Rules) -> sqlx::Result<()> {
    sqlx::query!(
        "update sign_in_failures set failures = greatest(failures - 1, 0),
                locked_until = case when failures % $2 = 0 then null else locked_until end
         where address = $1",
        address,
        i32::try_from(rules.address).unwrap_or(i32::MAX),
    )
    .execute(conn)
    .await?;
    Ok(())
}

// Sign-ins ----------------------------------------------------------------------------------------

pub(super) struct NewSignIn<'a> {
    pub id: SignInId,
    pub tenant: TenantId,
    pub user: UserId,
    pub method: Method,
    pub client: &'a Client,
    pub hash: &'a Hash,
    pub address: Option<String>,
    pub lifetime: Duration,
}

/// Makes a sign-in, and forgives the person's failures before it.
pub(super) async fn insert(conn: &mut PgConnection, new: NewSignIn<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "with person as (
             update users set failed_logins = 0, locked_until = null, last_login_at = queue.now(),
                              last_active_at = queue.now()
             where tenant_id = $2 and id = $3)
         insert into sign_ins (id, tenant_id, user_id, kind, method, secret_hash, device, address,
                               created_at, last_used_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, queue.now(), queue.now(), queue.now() + make_interval(secs => $9))",
        new.id.0,
        new.tenant.0,
        new.user.0,
        new.client.kind.as_str(),
        new.method.as_str(),
        new.hash.as_slice(),
        new.client.device(),
        new.address,
        new.lifetime.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) struct Renewed {
    pub id: SignInId,
    pub tenant: TenantId,
    pub user: UserId,
}

/// Puts a refresh token in the place of another. The row's lock decides who does: of two that come with
/// the same, the second finds that it was used.
pub(super) async fn renew(
    conn: &mut PgConnection,
    old: &Hash,
    new: &Hash,
    address: Option<&str>,
    lifetime: Duration,
) -> sqlx::Result<Option<Renewed>> {
    let renewed = sqlx::query_as!(
        Renewed,
        r#"update sign_ins s
           set secret_hash = $2, last_used_at = queue.now(), address = coalesce($3, s.address),
               expires_at = queue.now() + make_interval(secs => $4)
           from users u, tenants t
           where s.secret_hash = $1 and s.kind = 'tokens' and s.expires_at > queue.now()
             and u.tenant_id = s.tenant_id and u.id = s.user_id and u.active
             and t.id = s.tenant_id and t.active
           returning s.id as "id: SignInId", s.tenant_id as "tenant: TenantId", s.user_id as "user: UserId""#,
        old.as_slice(),
        new.as_slice(),
        address,
        lifetime.as_secs_f64(),
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(renewed) = &renewed {
        sqlx::query!(
            "with used as (
                 insert into used_refresh_tokens (secret_hash, tenant_id, sign_in_id, expires_at)
                 values ($1, $2, $3, queue.now() + make_interval(secs => $4)))
             update users set last_active_at = queue.now() where tenant_id = $2 and id = $5",
            old.as_slice(),
            renewed.tenant.0,
            renewed.id.0,
            lifetime.as_secs_f64(),
            renewed.user.0,
        )
        .execute(conn)
        .await?;
    }
    Ok(renewed)
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

/// Whose a browser's is that began so recently.
pub(super) async fn whose(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: SignInId,
    within: Duration,
) -> sqlx::Result<Option<UserId>> {
    sqlx::query_scalar!(
        r#"select user_id as "user: UserId" from sign_ins
           where tenant_id = $1 and id = $2 and kind = 'browser' and expires_at > queue.now()
             and created_at > queue.now() - make_interval(secs => $3)"#,
        tenant.0,
        id.0,
        within.as_secs_f64(),
    )
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

pub(super) async fn insert_challenge(
    conn: &mut PgConnection,
    hash: &Hash,
    tenant: TenantId,
    user: UserId,
    method: Method,
    lifetime: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into sign_in_challenges (secret_hash, tenant_id, user_id, method, expires_at)
         values ($1, $2, $3, $4, queue.now() + make_interval(secs => $5))",
        hash.as_slice(),
        tenant.0,
        user.0,
        method.as_str(),
        lifetime.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
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

pub(super) async fn set_password_hash(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    hash: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update users set password_hash = $3, updated_at = now() where tenant_id = $1 and id = $2",
        tenant.0,
        user.0,
        hash,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The better hash of the same password, unless it was changed meanwhile.
pub(super) async fn upgrade_hash(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    old: &str,
    new: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update users set password_hash = $4 where tenant_id = $1 and id = $2 and password_hash = $3",
        tenant.0,
        user.0,
        old,
        new,
    )
    .execute(conn)
    .await?;
    Ok(())
}

// Keys ----------------------------------------------------------------------------------------------

pub(super) struct SigningKey {
    pub id: Uuid,
    pub public: Vec<u8>,
    pub private: Sealed,
    pub created_at: Timestamp,
}

pub(super) async fn signing_keys(conn: &mut PgConnection) -> sqlx::Result<Vec<SigningKey>> {
    let rows = sqlx::query!(
        r#"select id, public_key, private_key as "private_key: Sealed", created_at from signing_keys
           order by created_at desc, id desc"#,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| SigningKey {
            id: row.id,
            public: row.public_key,
            private: row.private_key,
            created_at: row.created_at.to_jiff(),
        })
        .collect())
}

/// Any number that no other user of the database's advisory locks has.
const SIGNING_KEYS: i64 = 0x5369_676e_4b65_7973;

/// Until the commit.
pub(super) async fn lock_signing_keys(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("select pg_advisory_xact_lock($1)::text as locked", SIGNING_KEYS).fetch_one(conn).await?;
    Ok(())
}

pub(super) async fn insert_signing_key(
    conn: &mut PgConnection,
    id: Uuid,
    public: &[u8],
    private: Sealed,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into signing_keys (id, public_key, private_key, created_at) values ($1, $2, $3, queue.now())",
        id,
        public,
        private as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Those that were followed by another so long ago.
pub(super) async fn delete_signing_keys(conn: &mut PgConnection, after: Duration) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from signing_keys k where exists (
             select from signing_keys later where later.created_at > k.created_at
               and later.created_at < queue.now() - make_interval(secs => $1))",
        after.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
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
