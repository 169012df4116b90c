use jiff::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::NewInvitation;
use crate::{identity::Tier, opaque::Hash};

pub(super) async fn insert(
    conn: &mut PgConnection,
    id: Uuid,
    hash: &Hash,
    new: &NewInvitation,
) -> sqlx::Result<Timestamp> {
    let expires_at = sqlx::query_scalar!(
        "insert into tenant_invitations (id, secret_hash, email, tier, created_at, expires_at)
         values ($1, $2, $3, $4, queue.now(), queue.now() + make_interval(secs => $5)) returning expires_at",
        id,
        hash.as_slice(),
        new.email,
        new.tier.map(Tier::as_str),
        new.lasts.as_secs_f64(),
    )
    .fetch_one(conn)
    .await?;
    Ok(expires_at.to_jiff())
}

pub(super) async fn is_good(conn: &mut PgConnection, hash: &Hash, email: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
             select from tenant_invitations
             where secret_hash = $1 and used_at is null and expires_at > queue.now()
               and (email is null or lower(email) = lower($2))) as "is!""#,
        hash.as_slice(),
        email,
    )
    .fetch_one(conn)
    .await
}

pub(super) struct Taken {
    pub id: Uuid,
    pub tier: Option<Tier>,
}

/// The row's lock decides who takes it: whoever waits for it finds it used, or free again.
pub(super) async fn take(conn: &mut PgConnection, hash: &Hash, email: &str) -> sqlx::Result<Option<Taken>> {
    let row = sqlx::query!(
        "update tenant_invitations set used_at = queue.now()
         where secret_hash = $1 and used_at is null and expires_at > queue.now()
           and (email is null or lower(email) = lower($2))
         returning id, tier",
        hash.as_slice(),
        email,
    )
    .fetch_optional(conn)
    .await?;
    let tier = |text: String| text.parse().expect("the column's check knows the same tiers");
    Ok(row.map(|row| Taken { id: row.id, tier: row.tier.map(tier) }))
}

pub(super) async fn prune(conn: &mut PgConnection, most: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from tenant_invitations where id = any(array(
           select id from tenant_invitations where expires_at <= queue.now() order by expires_at limit $1
           for update skip locked))",
        most,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}
