use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::{ApiKeyId, Secret, TenantId, UserId};
use streamspace_queue::Tx;
use uuid::Uuid;

use super::{ApiKey, Error, Filter, NewApiKey, Owner, Reach, secret};
use crate::identity::store::role;

struct KeyRow {
    id: ApiKeyId,
    tenant_id: TenantId,
    user_id: Option<UserId>,
    role: Option<String>,
    name: String,
    prefix: String,
    scopes: Vec<String>,
    hourly_limit: i32,
    is_active: bool,
    expires_at: Option<jiff_sqlx::Timestamp>,
    previous_until: Option<jiff_sqlx::Timestamp>,
    last_used_at: Option<jiff_sqlx::Timestamp>,
    created_by: Option<UserId>,
    created_at: jiff_sqlx::Timestamp,
}

impl KeyRow {
    fn into_key(self) -> ApiKey {
        let owner = match (self.user_id, self.role) {
            (Some(user), _) => Owner::User(user),
            (None, Some(text)) => Owner::Tenant(role(&text)),
            (None, None) => unreachable!("the row's check refuses a key of nobody"),
        };
        let time = |at: Option<jiff_sqlx::Timestamp>| at.map(jiff_sqlx::Timestamp::to_jiff);
        ApiKey {
            id: self.id,
            tenant_id: self.tenant_id,
            name: self.name,
            prefix: self.prefix,
            owner,
            scopes: self.scopes,
            hourly_limit: self.hourly_limit.unsigned_abs(),
            is_active: self.is_active,
            expires_at: time(self.expires_at),
            previous_until: time(self.previous_until),
            last_used_at: time(self.last_used_at),
            created_by: self.created_by,
            created_at: self.created_at.to_jiff(),
        }
    }
}

pub(super) async fn insert(
    tx: &mut Tx,
    tenant: TenantId,
    id: ApiKeyId,
    new: &NewApiKey,
    secret: &Secret<String>,
) -> Result<ApiKey, Error> {
    let created_by = tx.actor().user.map(|user| user.0);
    let (user, role) = match new.owner {
        Owner::User(user) => (Some(user.0), None),
        Owner::Tenant(role) => (None, Some(role.as_str())),
    };
    let hash = secret::hash(secret);
    let row = sqlx::query_as!(
        KeyRow,
        r#"insert into api_keys (id, tenant_id, user_id, role, name, prefix, secret_hash, scopes,
                                 hourly_limit, expires_at, created_by)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
           returning id as "id: ApiKeyId", tenant_id as "tenant_id: TenantId", user_id as "user_id: UserId",
                     role, name, prefix, scopes, hourly_limit, true as "is_active!", expires_at,
                     previous_until, last_used_at, created_by as "created_by: UserId", created_at"#,
        id.0,
        tenant.0,
        user,
        role,
        new.name,
        secret::prefix(secret.expose()),
        hash.as_slice(),
        &new.scopes,
        new.hourly_limit.cast_signed(),
        new.expires_at.map(jiff_sqlx::Timestamp::from) as _,
        created_by,
    )
    .fetch_one(tx.conn().await?)
    .await
    .map_err(|error| match error.as_database_error().and_then(|error| error.constraint()) {
        Some("api_keys_user" | "api_keys_tenant_id_fkey") => Error::NoUser,
        _ => Error::Db(error),
    })?;
    Ok(row.into_key())
}

/// The two parameters of a reach: all, or whose.
fn columns(reach: Reach) -> (bool, Option<Uuid>) {
    match reach {
        Reach::Tenant => (true, None),
        Reach::Own(user) => (false, user.map(|user| user.0)),
    }
}

pub(super) async fn list(
    conn: &mut PgConnection,
    tenant: TenantId,
    reach: Reach,
    filter: &Filter,
    after: Option<ApiKeyId>,
    limit: u32,
) -> sqlx::Result<Vec<ApiKey>> {
    let (all, own) = columns(reach);
    let rows = sqlx::query_as!(
        KeyRow,
        r#"select id as "id: ApiKeyId", tenant_id as "tenant_id: TenantId", user_id as "user_id: UserId", role,
                  name, prefix, scopes, hourly_limit,
                  (active and (expires_at is null or expires_at > queue.now())) as "is_active!", expires_at,
                  case when previous_until > queue.now() then previous_until end as previous_until,
                  last_used_at, created_by as "created_by: UserId", created_at
           from api_keys
           where tenant_id = $1 and ($2 or user_id = $3)
             and ($4::boolean is null or (user_id is null) = $4)
             and ($5::uuid is null or user_id = $5)
             and ($6::boolean is null or (active and (expires_at is null or expires_at > queue.now())) = $6)
             and id < coalesce($7::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
           order by id desc limit $8"#,
        tenant.0,
        all,
        own,
        filter.of_tenant,
        filter.user.map(|user| user.0),
        filter.active,
        after.map(|after| after.0),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(KeyRow::into_key).collect())
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    None,
    /// Until the commit nobody else changes it.
    ForChange,
}

pub(super) async fn get(
    conn: &mut PgConnection,
    tenant: TenantId,
    reach: Reach,
    id: ApiKeyId,
    lock: Lock,
) -> sqlx::Result<Option<ApiKey>> {
    let (all, own) = columns(reach);
    if lock == Lock::ForChange {
        sqlx::query!(
            "select 1 as one from api_keys where tenant_id = $1 and id = $2 for update",
            tenant.0,
            id.0
        )
        .fetch_optional(&mut *conn)
        .await?;
    }
    let row = sqlx::query_as!(
        KeyRow,
        r#"select id as "id: ApiKeyId", tenant_id as "tenant_id: TenantId", user_id as "user_id: UserId", role,
                  name, prefix, scopes, hourly_limit,
                  (active and (expires_at is null or expires_at > queue.now())) as "is_active!", expires_at,
                  case when previous_until > queue.now() then previous_until end as previous_until,
                  last_used_at, created_by as "created_by: UserId", created_at
           from api_keys where tenant_id = $1 and id = $2 and ($3 or user_id = $4)"#,
        tenant.0,
        id.0,
        all,
        own,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(KeyRow::into_key))
}

/// Those of a person that work. The person is locked, so that of two that are made at once the second counts
/// the first.
pub(super) async fn count_active(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<i64> {
    sqlx::query!("select from users where tenant_id = $1 and id = $2 for no key update", tenant.0, user.0)
        .fetch_optional(&mut *conn)
        .await?;
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from api_keys
           where tenant_id = $1 and user_id = $2 and active
             and (expires_at is null or expires_at > queue.now())"#,
        tenant.0,
        user.0,
    )
    .fetch_one(conn)
    .await
}

/// Answers whether it was active until now.
pub(super) async fn revoke(conn: &mut PgConnection, tenant: TenantId, id: ApiKeyId) -> sqlx::Result<bool> {
    let revoked = sqlx::query!(
        "update api_keys set active = false, previous_hash = null, previous_until = null
         where tenant_id = $1 and id = $2 and active",
        tenant.0,
        id.0,
    )
    .execute(conn)
    .await?;
    Ok(revoked.rows_affected() > 0)
}

pub(super) async fn delete(conn: &mut PgConnection, tenant: TenantId, id: ApiKeyId) -> sqlx::Result<()> {
    sqlx::query!("delete from api_keys where tenant_id = $1 and id = $2", tenant.0, id.0)
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn delete_of(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<Vec<ApiKeyId>> {
    sqlx::query_scalar!(
        r#"delete from api_keys where tenant_id = $1 and user_id = $2 returning id as "id: ApiKeyId""#,
        tenant.0,
        user.0,
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn erase(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from api_keys where id = any(array(select id from api_keys where tenant_id = $1 limit $2))",
        tenant.0,
        most,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

/// Answers until when the old secret works.
pub(super) async fn rotate(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: ApiKeyId,
    secret: &Secret<String>,
    overlap: Duration,
) -> sqlx::Result<Option<Timestamp>> {
    let hash = secret::hash(secret);
    let until = sqlx::query_scalar!(
        "update api_keys
         set secret_hash = $3, prefix = $4,
             previous_hash = case when $5::double precision > 0 then secret_hash end,
             previous_until = case when $5 > 0 then queue.now() + make_interval(secs => $5) end
         where tenant_id = $1 and id = $2 returning previous_until",
        tenant.0,
        id.0,
        hash.as_slice(),
        secret::prefix(secret.expose()),
        overlap.as_secs_f64(),
    )
    .fetch_one(conn)
    .await?;
    Ok(until.map(jiff_sqlx::Timestamp::to_jiff))
}

pub(super) async fn expire(conn: &mut PgConnection, most: i64) -> sqlx::Result<Vec<(TenantId, ApiKeyId)>> {
    let expired = sqlx::query!(
        r#"update api_keys set active = false, previous_hash = null, previous_until = null
           where id in (select id from api_keys where active and expires_at <= queue.now()
                        order by expires_at limit $1 for update skip locked)
           returning tenant_id as "tenant: TenantId", id as "id: ApiKeyId""#,
        most,
    )
    .fetch_all(conn)
    .await?;
    Ok(expired.into_iter().map(|key| (key.tenant, key.id)).collect())
}

pub(super) async fn end_overlaps(conn: &mut PgConnection, most: i64) -> sqlx::Result<u64> {
    let ended = sqlx::query!(
        "update api_keys set previous_hash = null, previous_until = null
         where id = any(array(select id from api_keys where previous_until <= queue.now()
                              order by previous_until limit $1 for update skip locked))",
        most,
    )
    .execute(conn)
    .await?;
    Ok(ended.rows_affected())
}
