use std::time::Duration;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use streamspace_common::{Actor, ApiKeyId, Creator, Role, Secret, TenantId, UserId};
use streamspace_queue::Tx;
use uuid::Uuid;

use super::{
    ApiKey, Call, Day, Error, Filter, LoggedCall, NewApiKey, Owner, Reach, Scopes,
    check::Checked,
    secret::{self, Hash},
};
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

fn hash_of(secret: &Secret<String>) -> Hash {
    secret::hash(secret.expose()).expect("it was just made in this form")
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
    let hash = hash_of(secret);
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

/// Answers until when the old secret works.
pub(super) async fn rotate(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: ApiKeyId,
    secret: &Secret<String>,
    overlap: Duration,
) -> sqlx::Result<Option<Timestamp>> {
    let hash = hash_of(secret);
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

struct Row {
    id: ApiKeyId,
    tenant_id: TenantId,
    user_id: Option<UserId>,
    role: String,
    platform: bool,
    scopes: Vec<String>,
    hourly_limit: i32,
}

impl Row {
    fn into_checked(self) -> Checked {
        let actor = Actor {
            tenant: self.tenant_id,
            by: Creator::ApiKey(self.id),
            user: self.user_id,
            key: self.user_id.is_none().then_some(self.id),
            role: role(&self.role),
            platform: self.platform,
        };
        let hourly_limit = self.hourly_limit.unsigned_abs();
        Checked { key: self.id, actor, scopes: Scopes::new(self.scopes), hourly_limit }
    }
}

/// Who comes with the key of this hash, if they may come now.
pub(super) async fn by_hash(conn: &mut PgConnection, hash: &Hash) -> sqlx::Result<Option<Checked>> {
    let row = sqlx::query_as!(
        Row,
        r#"select k.id as "id: ApiKeyId", k.tenant_id as "tenant_id: TenantId", k.user_id as "user_id: UserId",
                  coalesce(u.role, k.role) as "role!", coalesce(u.platform_admin, false) as "platform!",
                  k.scopes, k.hourly_limit
           from api_keys k
           join tenants t on t.id = k.tenant_id and t.active
           left join users u on u.tenant_id = k.tenant_id and u.id = k.user_id
           where (k.secret_hash = $1 or k.previous_hash = $1 and k.previous_until > queue.now())
             and k.active and (k.expires_at is null or k.expires_at > queue.now())
             and (k.user_id is null or u.active)"#,
        hash.as_slice(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Row::into_checked))
}

/// The same for many by id: whoever is missing may not come any more.
pub(super) async fn by_ids(conn: &mut PgConnection, keys: &[uuid::Uuid]) -> sqlx::Result<Vec<Checked>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select k.id as "id: ApiKeyId", k.tenant_id as "tenant_id: TenantId", k.user_id as "user_id: UserId",
                  coalesce(u.role, k.role) as "role!", coalesce(u.platform_admin, false) as "platform!",
                  k.scopes, k.hourly_limit
           from api_keys k
           join tenants t on t.id = k.tenant_id and t.active
           left join users u on u.tenant_id = k.tenant_id and u.id = k.user_id
           where k.id = any($1) and k.active and (k.expires_at is null or k.expires_at > queue.now())
             and (k.user_id is null or u.active)"#,
        keys,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Row::into_checked).collect())
}

/// What a key of the tenant itself may do now; `None` when it may nothing any more.
pub(super) async fn of_tenant(
    conn: &mut PgConnection,
    tenant: TenantId,
    key: ApiKeyId,
) -> sqlx::Result<Option<Role>> {
    let found = sqlx::query_scalar!(
        r#"select k.role as "role!" from api_keys k join tenants t on t.id = k.tenant_id and t.active
           where k.tenant_id = $1 and k.id = $2 and k.user_id is null and k.active
             and (k.expires_at is null or k.expires_at > queue.now())"#,
        tenant.0,
        key.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|found| role(&found)))
}

/// The calls, their number by day, and when their keys were last used. Of a key that is
/// gone only the log remains. Keys are locked in order, against their removal alone, so that processes
/// which write the same keys do not wait for each other in a circle.
pub(super) async fn write_calls(conn: &mut PgConnection, calls: &[Call]) -> sqlx::Result<()> {
    let column = |of: fn(&Call) -> Uuid| calls.iter().map(of).collect::<Vec<_>>();
    let at: Vec<_> = calls.iter().map(|call| call.at.to_sqlx()).collect();
    let methods: Vec<_> = calls.iter().map(|call| call.method.to_owned()).collect();
    let routes: Vec<_> = calls.iter().map(|call| call.route.to_owned()).collect();
    let statuses: Vec<_> = calls.iter().map(|call| call.status.cast_signed()).collect();
    let addresses: Vec<_> = calls.iter().map(|call| call.address.clone()).collect();
    let durations: Vec<_> = calls.iter().map(|call| call.duration_us).collect();
    sqlx::query!(
        "with written as (
           insert into api_key_calls (id, at, tenant_id, api_key_id, method, route, status, address, duration_us)
           select * from unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[], $5::text[], $6::text[],
                                $7::smallint[], $8::text[], $9::bigint[])
           on conflict do nothing
           returning tenant_id, api_key_id, at, status),
         there as materialized (
           select tenant_id, id from api_keys where id = any($4) order by id for key share)
         insert into api_key_days as d (tenant_id, api_key_id, day, calls, errors)
         select w.tenant_id, w.api_key_id, (w.at at time zone 'UTC')::date, count(*),
                count(*) filter (where w.status >= 400)
         from written w join there k on k.tenant_id = w.tenant_id and k.id = w.api_key_id
         group by 1, 2, 3 order by 1, 2, 3
         on conflict on constraint api_key_days_pkey
         do update set calls = d.calls + excluded.calls, errors = d.errors + excluded.errors",
        &column(|call| call.id),
        at.clone() as _,
        &column(|call| call.tenant.0),
        &column(|call| call.key.0),
        &methods,
        &routes,
        &statuses,
        &addresses as &[Option<String>],
        &durations,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "update api_keys k set last_used_at = greatest(k.last_used_at, u.at)
         from (select l.id, w.at
               from (select id from api_keys where id = any($1) order by id for no key update skip locked) l
               join (select key, max(at) as at from unnest($1::uuid[], $2::timestamptz[]) as c(key, at)
                     group by key) w on w.key = l.id) u
         where k.id = u.id",
        &column(|call| call.key.0),
        at as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn calls(
    conn: &mut PgConnection,
    tenant: TenantId,
    key: ApiKeyId,
    before: Option<Uuid>,
    limit: u32,
) -> sqlx::Result<Vec<LoggedCall>> {
    let rows = sqlx::query!(
        "select id, at, method, route, status, address, duration_us from api_key_calls
         where tenant_id = $1 and api_key_id = $2 and id < coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
         order by id desc limit $4",
        tenant.0,
        key.0,
        before,
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| LoggedCall {
            id: row.id,
            at: row.at.to_jiff(),
            method: row.method,
            route: row.route,
            status: row.status.unsigned_abs(),
            address: row.address,
            duration_us: row.duration_us,
        })
        .collect())
}

pub(super) async fn days(
    conn: &mut PgConnection,
    tenant: TenantId,
    key: ApiKeyId,
    days: u32,
) -> sqlx::Result<Vec<Day>> {
    let rows = sqlx::query!(
        r#"select day as "day: jiff_sqlx::Date", calls, errors from api_key_days
           where tenant_id = $1 and api_key_id = $2
             and day > (queue.now() at time zone 'UTC')::date - $3::integer
           order by day desc limit $4"#,
        tenant.0,
        key.0,
        days.cast_signed(),
        i64::from(days),
    )
    .fetch_all(conn)
    .await?;
    let count = |n: i64| n.unsigned_abs();
    Ok(rows
        .into_iter()
        .map(|row| Day { day: row.day.to_jiff(), calls: count(row.calls), errors: count(row.errors) })
        .collect())
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

pub(super) async fn prune_days(conn: &mut PgConnection, kept: i32, most: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from api_key_days where ctid = any(array(
           select ctid from api_key_days where day < (queue.now() at time zone 'UTC')::date - $1::integer
           limit $2 for update skip locked))",
        kept,
        most,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

pub(super) async fn drop_months(conn: &mut PgConnection, kept: Duration) -> sqlx::Result<()> {
    sqlx::query!("select set_config('lock_timeout', '1s', true)").fetch_one(&mut *conn).await?;
    sqlx::query!(
        "select queue.drop_partitions('api_key_calls', queue.now() - make_interval(secs => $1))",
        kept.as_secs_f64(),
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}
