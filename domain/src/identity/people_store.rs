use sqlx::PgConnection;
use streamspace_common::{Role, TenantId, UserId};

use super::{
    Error,
    model::{LONGEST_USERNAME, User, UserFilter},
    store::role,
};

struct Row {
    id: UserId,
    tenant_id: TenantId,
    email: String,
    username: String,
    name: String,
    role: String,
    platform_admin: bool,
    active: bool,
    email_verified: bool,
    mfa_enabled: bool,
    last_login_at: Option<jiff_sqlx::Timestamp>,
    last_active_at: Option<jiff_sqlx::Timestamp>,
    failed_logins: i32,
    locked_until: Option<jiff_sqlx::Timestamp>,
    created_at: jiff_sqlx::Timestamp,
}

impl Row {
    fn into_user(self) -> User {
        let time = |at: Option<jiff_sqlx::Timestamp>| at.map(jiff_sqlx::Timestamp::to_jiff);
        User {
            id: self.id,
            tenant: self.tenant_id,
            email: self.email,
            username: self.username,
            name: self.name,
            role: role(&self.role),
            platform_admin: self.platform_admin,
            active: self.active,
            email_verified: self.email_verified,
            mfa_enabled: self.mfa_enabled,
            last_login_at: time(self.last_login_at),
            last_active_at: time(self.last_active_at),
            failed_logins: self.failed_logins.unsigned_abs(),
            locked_until: time(self.locked_until),
            created_at: self.created_at.to_jiff(),
        }
    }
}

/// A person's row as the view that all of these statements read it through.
macro_rules! select_people {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"select u.id as "id: UserId", u.tenant_id as "tenant_id: TenantId", u.email, u.username, u.name, u.role,
                      u.platform_admin, u.active, u.email_verified_at is not null as "email_verified!",
                      u.totp_enabled_at is not null as "mfa_enabled!", u.last_login_at, u.last_active_at,
                      u.failed_logins,
                      case when u.locked_until > queue.now() then u.locked_until end as locked_until, u.created_at
               from users u "#
                + $rest
            $(, $argument)*
        )
    };
}

pub(super) async fn by_id(conn: &mut PgConnection, tenant: TenantId, id: UserId) -> Result<User, Error> {
    let row =
        select_people!("where u.tenant_id = $1 and u.id = $2", tenant.0, id.0).fetch_optional(conn).await?;
    row.map(Row::into_user).ok_or(Error::NoUser)
}

/// The same, locked until the commit.
pub(super) async fn lock(conn: &mut PgConnection, tenant: TenantId, id: UserId) -> Result<User, Error> {
    let row = select_people!("where u.tenant_id = $1 and u.id = $2 for update", tenant.0, id.0)
        .fetch_optional(conn)
        .await?;
    row.map(Row::into_user).ok_or(Error::NoUser)
}

pub(super) async fn by_email(conn: &mut PgConnection, tenant: TenantId, email: &str) -> Result<User, Error> {
    let row = select_people!("where u.tenant_id = $1 and lower(u.email) = lower($2)", tenant.0, email)
        .fetch_optional(conn)
        .await?;
    row.map(Row::into_user).ok_or(Error::NoUser)
}

pub(super) async fn waiting(
    conn: &mut PgConnection,
    tenant: TenantId,
    email: &str,
) -> sqlx::Result<Option<User>> {
    let row = select_people!(
        "where u.tenant_id = $1 and lower(u.email) = lower($2) and u.active and u.password_hash is null
           and u.last_login_at is null",
        tenant.0,
        email,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Row::into_user))
}

pub(super) async fn set_email_verified(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: UserId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update users set email_verified_at = queue.now() where tenant_id = $1 and id = $2",
        tenant.0,
        id.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Newest first, after the cursor.
pub(super) async fn list(
    conn: &mut PgConnection,
    tenant: TenantId,
    filter: &UserFilter,
    after: Option<UserId>,
    limit: u32,
) -> sqlx::Result<Vec<User>> {
    let rows = select_people!(
        "where u.tenant_id = $1 and ($2::text is null or u.role = $2) and ($3::boolean is null or u.active = $3)
           and ($4::text is null or position(lower($4) in lower(u.name)) > 0
                or position(lower($4) in lower(u.username)) > 0 or position(lower($4) in lower(u.email)) > 0)
           and id < coalesce($5::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
         order by u.id desc limit $6",
        tenant.0,
        filter.role.map(Role::as_str),
        filter.active,
        filter.q.as_deref(),
        after.map(|after| after.0),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Row::into_user).collect())
}

pub(super) struct Insert<'a> {
    pub email: &'a str,
    pub username: &'a str,
    pub name: &'a str,
    pub role: Role,
    pub platform_admin: bool,
    pub password_hash: Option<&'a str>,
    pub email_verified: bool,
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    tenant: TenantId,
    new: Insert<'_>,
) -> Result<User, Error> {
    let id = UserId::new();
    sqlx::query!(
        "insert into users (id, tenant_id, email, username, name, role, platform_admin, password_hash, email_verified_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, case when $9::boolean then queue.now() end)",
        id.0,
        tenant.0,
        new.email,
        new.username,
        new.name,
        new.role.as_str(),
        new.platform_admin,
        new.password_hash,
        new.email_verified,
    )
    .execute(&mut *conn)
    .await
    .map_err(taken)?;
    by_id(conn, tenant, id).await
}

fn taken(error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(|error| error.constraint()) {
        Some("users_email_per_tenant") => Error::EmailTaken,
        Some("users_username_per_tenant") => Error::UsernameTaken,
        Some("users_tenant_id_fkey") => Error::NoTenant,
        _ => Error::Db(error),
    }
}

/// A username like this one that nobody in the tenant has.
pub(super) async fn free_username(
    conn: &mut PgConnection,
    tenant: TenantId,
    wanted: &str,
) -> sqlx::Result<String> {
    let stem: String = wanted.chars().take(LONGEST_USERNAME - 7).collect();
    sqlx::query_scalar!(
        r#"select candidate as "candidate!" from (
               select $2::text as candidate, 1 as n
               union all
               select $3::text || '-' || n, n from generate_series(2, 100000) n) candidates
           where not exists (select from users where tenant_id = $1 and lower(username) = candidate)
           order by n limit 1"#,
        tenant.0,
        wanted,
        stem,
    )
    .fetch_one(conn)
    .await
}

/// Writes what may change about a person. Another address is to be verified anew.
pub(super) async fn update(conn: &mut PgConnection, user: &User) -> Result<(), Error> {
    sqlx::query!(
        "update users set name = $3, username = $4, role = $5, active = $6, updated_at = now(),
                email_verified_at = case when lower(email) = lower($7) then email_verified_at end, email = $7
         where tenant_id = $1 and id = $2",
        user.tenant.0,
        user.id.0,
        user.name,
        user.username,
        user.role.as_str(),
        user.active,
        user.email,
    )
    .execute(conn)
    .await
    .map_err(taken)?;
    Ok(())
}

pub(super) async fn unlock(conn: &mut PgConnection, tenant: TenantId, id: UserId) -> sqlx::Result<()> {
    sqlx::query!(
        "update users set failed_logins = 0, locked_until = null where tenant_id = $1 and id = $2",
        tenant.0,
        id.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether somebody else is an owner who may sign in. The tenant's row is locked: of two owners who
/// demote each other one stays.
pub(super) async fn has_other_owner(
    conn: &mut PgConnection,
    tenant: TenantId,
    but: UserId,
) -> sqlx::Result<bool> {
    sqlx::query!("select 1 as one from tenants where id = $1 for update", tenant.0)
        .fetch_optional(&mut *conn)
        .await?;
    sqlx::query_scalar!(
        r#"select exists (select from users where tenant_id = $1 and id <> $2 and role = 'owner' and active) as "is!""#,
        tenant.0,
        but.0,
    )
    .fetch_one(conn)
    .await
}
