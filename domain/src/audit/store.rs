use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use streamspace_common::TenantId;
use streamspace_queue::Tx;
use uuid::Uuid;

use super::{Entry, Filter, Record};

pub(super) async fn insert(tx: &mut Tx, tenant: TenantId, entry: Entry) -> sqlx::Result<()> {
    let actor = tx.actor().clone();
    let request = tx.request().clone();
    let (actor_type, actor_id) = actor.by.columns();
    sqlx::query!(
        "insert into audit (id, tenant_id, user_id, actor_type, actor_id, action, resource_type,
                            resource_id, before, after, ip, request_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        Uuid::now_v7(),
        tenant.0,
        actor.user.map(|user| user.0),
        actor_type,
        actor_id,
        entry.action,
        entry.resource_type,
        entry.resource_id,
        entry.before,
        entry.after,
        request.address.map(|address| address.to_string()),
        request.id,
    )
    .execute(tx.conn().await?)
    .await?;
    Ok(())
}

struct Row {
    id: Uuid,
    at: jiff_sqlx::Timestamp,
    user_id: Option<Uuid>,
    actor_type: String,
    actor_id: Option<Uuid>,
    action: String,
    resource_type: String,
    resource_id: Option<String>,
    before: Option<serde_json::Value>,
    after: Option<serde_json::Value>,
    ip: Option<String>,
    request_id: Option<String>,
}

impl Row {
    fn into_record(self) -> Record {
        Record {
            id: self.id,
            at: self.at.to_jiff(),
            user: self.user_id.map(Into::into),
            actor_type: self.actor_type,
            actor_id: self.actor_id,
            action: self.action,
            resource_type: self.resource_type,
            resource_id: self.resource_id,
            before: self.before,
            after: self.after,
            ip: self.ip,
            request_id: self.request_id,
        }
    }
}

fn sql(at: Option<Timestamp>) -> Option<jiff_sqlx::Timestamp> {
    at.map(ToSqlx::to_sqlx)
}

/// Of the next `scan` rows those that a filter matches, `limit` at most, newest first.
pub(super) async fn newest(
    conn: &mut PgConnection,
    tenant: TenantId,
    filter: &Filter,
    from: Option<Uuid>,
    scan: i64,
    limit: i64,
) -> sqlx::Result<Vec<Record>> {
    let rows = sqlx::query_as!(
        Row,
        "select id, at, user_id, actor_type, actor_id, action, resource_type, resource_id, before, after, ip,
                request_id
         from (select * from audit
               where tenant_id = $1 and id < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
                 and id >= $3 and at >= coalesce($4::timestamptz, '-infinity') and at < coalesce($5::timestamptz, 'infinity')
               order by id desc limit $6) scanned
         where ($7::uuid is null or user_id = $7)
           and ($8::text is null or action = $8)
           and ($9::text is null or resource_type = $9)
           and ($10::text is null or resource_id = $10)
           and ($11::text is null or ip = $11)
           and ($12::text is null
                or strpos(lower(concat_ws(' ', action, resource_type, resource_id, ip, request_id,
                                          before::text, after::text)), lower($12)) > 0)
         order by id desc limit $13",
        tenant.0,
        from,
        filter.first_id(),
        sql(filter.from) as _,
        sql(filter.to) as _,
        scan,
        filter.user.map(|user| user.0),
        filter.action,
        filter.resource_type,
        filter.resource_id,
        filter.ip,
        filter.q,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Row::into_record).collect())
}

/// The last of these rows; `None` when there were fewer: then it was the end.
pub(super) async fn last_of_scan(
    conn: &mut PgConnection,
    tenant: TenantId,
    filter: &Filter,
    from: Option<Uuid>,
    scan: i64,
) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select id from audit
         where tenant_id = $1 and id < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
           and id >= $3 and at >= coalesce($4::timestamptz, '-infinity') and at < coalesce($5::timestamptz, 'infinity')
         order by id desc offset $6 limit 1",
        tenant.0,
        from,
        filter.first_id(),
        sql(filter.from) as _,
        sql(filter.to) as _,
        scan - 1,
    )
    .fetch_optional(conn)
    .await
}

/// As [`newest`], the other way.
pub(super) async fn oldest(
    conn: &mut PgConnection,
    tenant: TenantId,
    filter: &Filter,
    from: Option<Uuid>,
    scan: i64,
    limit: i64,
) -> sqlx::Result<Vec<Record>> {
    let rows = sqlx::query_as!(
        Row,
        "select id, at, user_id, actor_type, actor_id, action, resource_type, resource_id, before, after, ip,
                request_id
         from (select * from audit
               where tenant_id = $1 and id > coalesce($2::uuid, '00000000-0000-0000-0000-000000000000')
                 and id >= $3 and at >= coalesce($4::timestamptz, '-infinity') and at < coalesce($5::timestamptz, 'infinity')
               order by id asc limit $6) scanned
         where ($7::uuid is null or user_id = $7)
           and ($8::text is null or action = $8)
           and ($9::text is null or resource_type = $9)
           and ($10::text is null or resource_id = $10)
           and ($11::text is null or ip = $11)
           and ($12::text is null
                or strpos(lower(concat_ws(' ', action, resource_type, resource_id, ip, request_id,
                                          before::text, after::text)), lower($12)) > 0)
         order by id asc limit $13",
        tenant.0,
        from,
        filter.first_id(),
        sql(filter.from) as _,
        sql(filter.to) as _,
        scan,
        filter.user.map(|user| user.0),
        filter.action,
        filter.resource_type,
        filter.resource_id,
        filter.ip,
        filter.q,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Row::into_record).collect())
}

/// As [`last_of_scan`], the other way.
pub(super) async fn end_of_scan(
    conn: &mut PgConnection,
    tenant: TenantId,
    filter: &Filter,
    from: Option<Uuid>,
    scan: i64,
) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select id from audit
         where tenant_id = $1 and id > coalesce($2::uuid, '00000000-0000-0000-0000-000000000000')
           and id >= $3 and at >= coalesce($4::timestamptz, '-infinity') and at < coalesce($5::timestamptz, 'infinity')
         order by id asc offset $6 limit 1",
        tenant.0,
        from,
        filter.first_id(),
        sql(filter.from) as _,
        sql(filter.to) as _,
        scan - 1,
    )
    .fetch_optional(conn)
    .await
}

/// Seals the next rows; answers how many.
pub(super) async fn seal(conn: &mut PgConnection, most: i32) -> sqlx::Result<u64> {
    let sealed =
        sqlx::query_scalar!(r#"select queue.seal_audit($1) as "sealed!""#, most).fetch_one(conn).await?;
    Ok(u64::try_from(sealed).unwrap_or(0))
}

/// Not while the table is in use for long: whoever waits for it waits behind this.
pub(super) async fn drop_months(conn: &mut PgConnection, kept: std::time::Duration) -> sqlx::Result<u64> {
    sqlx::query!("select set_config('lock_timeout', '1s', true)").fetch_one(&mut *conn).await?;
    let dropped = sqlx::query_scalar!(
        r#"select queue.drop_audit_months(now() - make_interval(secs => $1)) as "dropped!""#,
        kept.as_secs_f64(),
    )
    .fetch_one(conn)
    .await?;
    Ok(u64::try_from(dropped).unwrap_or(0))
}

/// One record of a chain.
pub(super) struct Link {
    pub tenant: TenantId,
    pub sequence: i64,
    pub row_ids: Vec<Uuid>,
    pub row_hashes: Vec<u8>,
    pub anchor: bool,
    pub hash: Vec<u8>,
}

/// The records of a pass, and the last row of it.
pub(super) async fn links(conn: &mut PgConnection, pass: i64) -> sqlx::Result<(Vec<Link>, Option<Position>)> {
    let rows = sqlx::query!(
        r#"select tenant_id as "tenant: TenantId", sequence, row_ids, row_hashes, anchor, hash, last_at, last_id
           from audit_chain where pass = $1 order by tenant_id"#,
        pass,
    )
    .fetch_all(conn)
    .await?;
    let last = rows.last().map(|row| (row.last_at, row.last_id));
    let link = rows.into_iter().map(|row| Link {
        tenant: row.tenant,
        sequence: row.sequence,
        row_ids: row.row_ids,
        row_hashes: row.row_hashes,
        anchor: row.anchor,
        hash: row.hash,
    });
    Ok((link.collect(), last))
}

/// A place in the order (at, id).
pub(super) type Position = (jiff_sqlx::Timestamp, Uuid);

/// The next pass that has records, which is not always the next number.
pub(super) async fn next_pass(conn: &mut PgConnection, after: i64) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(r#"select min(pass) as pass from audit_chain where pass > $1"#, after)
        .fetch_one(conn)
        .await
}

pub(super) struct Horizon {
    /// Rows that begin here are still there; the first when there are all.
    pub start: Position,
    /// The last row that is sealed.
    pub sealed: Position,
}

/// `None`: nothing was sealed yet.
pub(super) async fn horizon(conn: &mut PgConnection) -> sqlx::Result<Option<Horizon>> {
    let row = sqlx::query!(
        r#"select greatest(dropped_until, '0001-01-01 00:00:00+00') as "start!: jiff_sqlx::Timestamp",
                  sealed_at, sealed_id
           from audit_horizon where sealed_at > '-infinity'"#
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Horizon { start: (row.start, Uuid::nil()), sealed: (row.sealed_at, row.sealed_id) }))
}

/// A row as it is now.
pub(super) struct Found {
    pub tenant: TenantId,
    pub id: Uuid,
    pub at: jiff_sqlx::Timestamp,
    pub hash: Vec<u8>,
}

/// Rows after a position up to another, in order.
pub(super) async fn found(
    conn: &mut PgConnection,
    after: Position,
    to: Position,
    most: i64,
) -> sqlx::Result<Vec<Found>> {
    sqlx::query_as!(
        Found,
        r#"select tenant_id as "tenant: TenantId", id, at, queue.audit_hash(a) as "hash!" from audit a
           where at >= $1 and (at, id) > ($1, $2) and at <= $3 and (at, id) <= ($3, $4)
           order by at, id limit $5"#,
        after.0 as _,
        after.1,
        to.0 as _,
        to.1,
        most,
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn unsealed(conn: &mut PgConnection, after: Position) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from audit where at >= $1 and (at, id) > ($1, $2)"#,
        after.0 as _,
        after.1,
    )
    .fetch_one(conn)
    .await
}
