//! What keys were used for: the log of their calls, and the counts by day.

use std::time::Duration;

use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use streamspace_common::{ApiKeyId, TenantId};
use uuid::Uuid;

use super::{Call, Day, LoggedCall};

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

/// Of a tenant: so many rows of each table at most.
pub(super) async fn erase(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query_scalar!(
        r#"with calls as (
             delete from api_key_calls where (tenant_id, id, at) in (
               select tenant_id, id, at from api_key_calls where tenant_id = $1 limit $2) returning 1),
           days as (
             delete from api_key_days where (tenant_id, api_key_id, day) in (
               select tenant_id, api_key_id, day from api_key_days where tenant_id = $1 limit $2) returning 1)
           select (select count(*) from calls) + (select count(*) from days) as "gone!""#,
        tenant.0,
        most,
    )
    .fetch_one(conn)
    .await?;
    Ok(gone.unsigned_abs())
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
