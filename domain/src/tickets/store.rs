use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::ApiKeyId;
use streamspace_queue::Tx;

pub(super) async fn insert(
    tx: &mut Tx,
    hash: &[u8; 32],
    key: ApiKeyId,
    path: &str,
) -> sqlx::Result<Timestamp> {
    let tenant = tx.tenant();
    let expires_at = sqlx::query_scalar!(
        "insert into stream_tickets (secret_hash, tenant_id, api_key_id, path, expires_at)
         values ($1, $2, $3, $4, queue.now() + interval '30 s') returning expires_at",
        hash.as_slice(),
        tenant.0,
        key.0,
        path,
    )
    .fetch_one(tx.conn().await?)
    .await?;
    Ok(expires_at.to_jiff())
}

/// The delete decides who takes it: of two that come at once, one finds nothing.
pub(super) async fn take(
    conn: &mut PgConnection,
    hash: &[u8; 32],
    path: &str,
) -> sqlx::Result<Option<ApiKeyId>> {
    let taken = sqlx::query!(
        r#"delete from stream_tickets where secret_hash = $1
           returning api_key_id as "key: ApiKeyId", path = $2 and expires_at > queue.now() as "good!""#,
        hash.as_slice(),
        path,
    )
    .fetch_optional(conn)
    .await?;
    Ok(taken.filter(|taken| taken.good).map(|taken| taken.key))
}

pub(super) async fn prune(conn: &mut PgConnection, most: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from stream_tickets where secret_hash in (
             select secret_hash from stream_tickets where expires_at < queue.now()
             order by expires_at limit $1 for update skip locked)",
        most,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}
