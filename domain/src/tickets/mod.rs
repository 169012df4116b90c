//! Tickets for streams. A browser cannot send a header with a WebSocket, and a key in a URL would
//! land in logs; a ticket may, since it is worth one connection to one path within half a minute.

mod store;

use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::{Classified, ErrorKind, Secret, TenantId};
use streamspace_queue::{Queue, Tx};

use crate::{
    callers::{Checked, Credential},
    identity::{Forbidden, Permission, Require},
    opaque::Form,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Forbidden(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }
}

#[derive(Debug)]
pub struct Ticket {
    /// Shown once; the database has its hash.
    pub secret: Secret<String>,
    pub expires_at: Timestamp,
}

/// Whose a ticket is.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    pub credential: Credential,
    /// The end of the access token that it was made with.
    pub until: Option<Timestamp>,
}

const MOST_PRUNED: i64 = 1000;

/// Makes a ticket for one path with the rights of what the caller came with.
pub async fn issue(tx: &mut Tx, holder: &Checked, path: &str) -> Result<Ticket, Error> {
    tx.require(Permission::StreamsOpen)?;
    let secret = Form::TICKET.make();
    let holder = Holder { credential: holder.credential, until: holder.expires_at };
    let expires_at = store::insert(tx, &Form::TICKET.hash_made(&secret), &holder, path).await?;
    Ok(Ticket { secret, expires_at })
}

/// Takes a ticket: whose it was, if it was good for this path. It is used up either way.
pub async fn take(queue: &Queue, secret: &str, path: &str) -> sqlx::Result<Option<Holder>> {
    let Some(hash) = Form::TICKET.hash(secret) else { return Ok(None) };
    let mut tx = queue.db().begin().await?;
    let holder = store::take(&mut tx, &hash, path).await?;
    tx.commit().await?;
    Ok(holder)
}

/// Removes tickets that nobody came with, a thousand at most; answers whether there may be more.
pub async fn prune(tx: &mut Tx) -> sqlx::Result<bool> {
    let gone = store::prune(tx.conn().await?, MOST_PRUNED).await?;
    Ok(gone >= MOST_PRUNED.unsigned_abs())
}

/// Removes those of a tenant that goes, so many at most; answers how many.
pub(crate) async fn erase(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    store::erase(conn, tenant, most).await
}
