use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::Sealed;
use uuid::Uuid;

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
