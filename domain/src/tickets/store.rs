use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use streamspace_common::{ApiKeyId, SignInId, TenantId};
use streamspace_queue::Tx;

use super::Holder;
use crate::{callers::Credential, opaque::Hash};

pub(super) async fn insert(tx: &mut Tx, hash: &Hash, holder: &Holder, path: &str) -> sqlx::Result<Timestamp> {
    let tenant = tx.tenant();
    let (key, sign_in) = match holder.credential {
        Credential::Key(key) => (Some(key.0), None),
        Credential::SignIn(sign_in) => (None, Some(sign_in.0)),
    };
    let expires_at = sqlx::query_scalar!(
        "insert into stream_tickets (secret_hash, tenant_id, api_key_id, sign_in_id, holder_until, path, expires_at)
         values ($1, $2, $3, $4, $6, $5, queue.now() + interval '30 s') returning expires_at",
        hash.as_slice(),
        tenant.0,
        key,
        sign_in,
        path,
        holder.until.map(ToSqlx::to_sqlx) as _,
    )
    .fetch_one(tx.conn().await?)
    .await?;
    Ok(expires_at.to_jiff())
}

/// The delete decides who takes it: of two that come at once, one finds nothing.
pub(super) async fn take(conn: &mut PgConnection, hash: &Hash, path: &str) -> sqlx::Result<Option<Holder>> {
    let taken = sqlx::query!(
        r#"delete from stream_tickets where secret_hash = $1
           returning api_key_id as "key: ApiKeyId", sign_in_id as "sign_in: SignInId",
                     holder_until,
                     path = $2 and expires_at > queue.now() as "good!""#,
        hash.as_slice(),
        path,
    )
    .fetch_optional(conn)
    .await?;
    Ok(taken.filter(|taken| taken.good).and_then(|taken| {
        let credential = taken.key.map(Credential::Key).or(taken.sign_in.map(Credential::SignIn))?;
        Some(Holder { credential, until: taken.holder_until.map(|until| until.to_jiff()) })
    }))
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

pub(super) async fn erase(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from stream_tickets where secret_hash in (
             select secret_hash from stream_tickets where tenant_id = $1 limit $2)",
        tenant.0,
        most,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}
