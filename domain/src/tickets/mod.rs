//! Tickets for streams. A browser cannot send a header with a WebSocket, and a key in a URL would
//! land in logs; a ticket may, since it is worth one connection to one path within half a minute.

mod store;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use streamspace_common::{ApiKeyId, Classified, Creator, ErrorKind, Secret};
use streamspace_queue::{Queue, Tx};

use crate::identity::{Forbidden, Permission, Require};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("tickets are for those who come with an API key")]
    NoKey,
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoKey => ErrorKind::Conflict,
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

const FORM: &str = "st_";
const MOST_PRUNED: i64 = 1000;

/// Makes a ticket for one path with the rights of the caller's key.
pub async fn issue(tx: &mut Tx, path: &str) -> Result<Ticket, Error> {
    tx.require(Permission::StreamsOpen)?;
    let Creator::ApiKey(key) = tx.actor().by else { return Err(Error::NoKey) };
    let random: [u8; 32] = rand::random();
    let secret = Secret::new(format!("{FORM}{}", URL_SAFE_NO_PAD.encode(random)));
    let expires_at = store::insert(tx, &hash(secret.expose()), key, path).await?;
    Ok(Ticket { secret, expires_at })
}

/// Takes a ticket: whose it was, if it was good for this path. It is used up either way.
pub async fn take(queue: &Queue, secret: &str, path: &str) -> sqlx::Result<Option<ApiKeyId>> {
    if !secret.starts_with(FORM) {
        return Ok(None);
    }
    let mut tx = queue.db().begin().await?;
    let key = store::take(&mut tx, &hash(secret), path).await?;
    tx.commit().await?;
    Ok(key)
}

/// Removes tickets that nobody came with, a thousand at most; answers whether there may be more.
pub async fn prune(tx: &mut Tx) -> sqlx::Result<bool> {
    let gone = store::prune(tx.conn().await?, MOST_PRUNED).await?;
    Ok(gone >= MOST_PRUNED.unsigned_abs())
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}
