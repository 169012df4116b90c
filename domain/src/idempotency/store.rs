use std::collections::BTreeMap;

use sqlx::PgConnection;
use streamspace_common::TenantId;
use uuid::Uuid;

use super::{Answer, Begin, Claim, Keep, Request};

pub(super) async fn begin(conn: &mut PgConnection, request: Request) -> sqlx::Result<Begin> {
    loop {
        let lock = Uuid::now_v7();
        if insert(conn, &request, lock).await? {
            return Ok(Begin::Run(Claim { request, lock }));
        }
        // Nothing there: its holder gave it back just now.
        if let Some(began) = existing(conn, &request).await? {
            return Ok(began);
        }
    }
}

/// A first request, one whose predecessor lost its lock, or one whose answer has had its day.
async fn insert(conn: &mut PgConnection, request: &Request, lock: Uuid) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        "insert into idempotency_keys as k
                (tenant_id, actor, method, path, key, body_hash, lock_id, locked_until, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, queue.now() + interval '60 s', queue.now() + interval '24 h')
         on conflict (tenant_id, actor, method, path, key) do update
             set body_hash = excluded.body_hash, lock_id = excluded.lock_id, locked_until = excluded.locked_until,
                 expires_at = excluded.expires_at, status = null, headers = null, body = null,
                 location = null, secret = false
             where k.expires_at <= queue.now()
                or (k.status is null and k.locked_until <= queue.now() and k.body_hash = any($8))
         returning lock_id",
        request.tenant.0,
        request.actor,
        request.method,
        request.path,
        request.key,
        request.body_marks[0],
        lock,
        &request.body_marks,
    )
    .fetch_optional(conn)
    .await?;
    Ok(inserted.is_some())
}

async fn existing(conn: &mut PgConnection, request: &Request) -> sqlx::Result<Option<Begin>> {
    let row = sqlx::query!(
        "select body_hash, status, headers, body, location, secret from idempotency_keys
         where tenant_id = $1 and actor = $2 and method = $3 and path = $4 and key = $5",
        request.tenant.0,
        request.actor,
        request.method,
        request.path,
        request.key,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| match row.status {
        _ if !request.body_marks.contains(&row.body_hash) => Begin::OtherBody,
        None => Begin::InFlight,
        Some(_) if row.secret => Begin::AlreadyCreated { location: row.location },
        Some(status) => {
            let status = status.unsigned_abs();
            let headers = row.headers.and_then(|headers| serde_json::from_value(headers).ok());
            let headers: BTreeMap<String, String> = headers.unwrap_or_default();
            match row.body {
                Some(body) => Begin::Replay(Answer { status, headers, body }),
                None => Begin::TooLong { status, headers },
            }
        }
    }))
}

/// Whether the claim still held.
pub(super) async fn finish(conn: &mut PgConnection, claim: &Claim, keep: Keep) -> sqlx::Result<bool> {
    let is_secret = matches!(keep, Keep::Place { .. });
    let (status, headers, body, location) = match keep {
        Keep::Whole(Answer { status, headers, body }) => (status, Some(headers), Some(body), None),
        Keep::Head { status, headers } => (status, Some(headers), None, None),
        Keep::Place { status, location } => (status, None, None, location),
    };
    let request = &claim.request;
    let done = sqlx::query!(
        "update idempotency_keys
            set status = $7, headers = $8, body = $9, location = $10, secret = $11,
                lock_id = null, locked_until = null, expires_at = queue.now() + interval '24 h'
         where tenant_id = $1 and actor = $2 and method = $3 and path = $4 and key = $5 and lock_id = $6",
        request.tenant.0,
        request.actor,
        request.method,
        request.path,
        request.key,
        claim.lock,
        status.cast_signed(),
        headers.map(|headers| serde_json::json!(headers)),
        body,
        location,
        is_secret,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn release(conn: &mut PgConnection, claim: &Claim) -> sqlx::Result<()> {
    let request = &claim.request;
    sqlx::query!(
        "delete from idempotency_keys
         where tenant_id = $1 and actor = $2 and method = $3 and path = $4 and key = $5 and lock_id = $6",
        request.tenant.0,
        request.actor,
        request.method,
        request.path,
        request.key,
        claim.lock,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn prune(conn: &mut PgConnection, most: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from idempotency_keys where (tenant_id, actor, method, path, key) in (
             select tenant_id, actor, method, path, key from idempotency_keys where expires_at <= queue.now()
             order by expires_at limit $1 for update skip locked)",
        most,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

pub(super) async fn erase(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from idempotency_keys where (tenant_id, actor, method, path, key) in (
             select tenant_id, actor, method, path, key from idempotency_keys where tenant_id = $1 limit $2)",
        tenant.0,
        most,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}
