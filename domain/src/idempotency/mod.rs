//! Requests that may be sent twice and act once.
//!
//! A short transaction stores a mark of the body with a lock; the operation's own transaction
//! stores the answer and gives the lock back, so effect and answer commit together or not at all. A
//! lock that its holder lost, by dying or by being slow, is taken over; the late holder then finds
//! that it is not his and rolls back.

mod store;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use streamspace_common::{Actor, MasterKeys, TenantId};
use streamspace_queue::{Queue, Tx};
use uuid::Uuid;

/// Answers longer than this are not kept.
pub const MAX_BODY: usize = 64 * 1024;
const MOST_PRUNED: i64 = 1000;
/// An entry of an index has at most 2,704 bytes.
const LONGEST_PATH: usize = 1024;

/// What is the same when a request is sent again.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) tenant: TenantId,
    pub(crate) actor: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) key: String,
    /// The first is stored; one that was stored before a master key's rotation is any of them.
    pub(crate) body_marks: Vec<Vec<u8>>,
}

impl Request {
    /// `key` has 1 to 255 characters; `body` is all that decides what the request does beside its
    /// path.
    ///
    /// A body may hold a password, so of it the database has no hash that anybody could try guesses on.
    pub fn new(
        master: &MasterKeys,
        actor: &Actor,
        method: &str,
        path: &str,
        key: &str,
        body: &[&[u8]],
    ) -> Self {
        let (by, id) = actor.by.columns();
        let mut hash = Sha256::new();
        for part in body {
            // With their lengths, so that no two lists of parts look alike.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self {
            tenant: actor.tenant,
            actor: id.map_or_else(|| by.to_owned(), |id| format!("{by}:{id}")),
            method: method.to_owned(),
            path: indexed(path),
            key: key.to_owned(),
            body_marks: master.marks("idempotency", &hash.finalize()),
        }
    }
}

/// A path as the table's key can hold it: of a long one its hash.
fn indexed(path: &str) -> String {
    if path.len() <= LONGEST_PATH {
        return path.to_owned();
    }
    let hash = Sha256::digest(path);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// The right to run a request, until somebody else takes it over.
#[derive(Clone, Debug)]
pub struct Claim {
    pub(crate) request: Request,
    pub(crate) lock: Uuid,
}

/// An answer as it is replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// What is kept of an answer.
#[derive(Clone, Debug)]
pub enum Keep {
    Whole(Answer),
    /// It was too long: how it began.
    Head {
        status: u16,
        headers: BTreeMap<String, String>,
    },
    /// It carried a secret: only where the thing is, if it has a place.
    Place {
        status: u16,
        location: Option<String>,
    },
}

/// How a request that carries a key begins.
#[derive(Debug)]
pub enum Begin {
    /// Run it.
    Run(Claim),
    Replay(Answer),
    /// It was answered, with more than is kept.
    TooLong {
        status: u16,
        headers: BTreeMap<String, String>,
    },
    /// It was answered, with something that is not told twice.
    AlreadyCreated {
        location: Option<String>,
    },
    /// It is being run.
    InFlight,
    /// The key belongs to another body.
    OtherBody,
}

/// Another has taken over; what this one did must not commit.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    #[error("another request with this Idempotency-Key has taken over")]
    Lost,
    #[error("database")]
    Db(#[from] sqlx::Error),
}

/// In a transaction of its own, which is over when this answers.
pub async fn begin(queue: &Queue, request: Request) -> sqlx::Result<Begin> {
    let mut tx = queue.db().begin().await?;
    let began = store::begin(&mut tx, request).await?;
    tx.commit().await?;
    Ok(began)
}

/// Stores the answer in the operation's transaction.
pub async fn finish(tx: &mut Tx, claim: &Claim, keep: Keep) -> Result<(), FinishError> {
    let conn = tx.conn().await?;
    if store::finish(conn, claim, keep).await? { Ok(()) } else { Err(FinishError::Lost) }
}

/// Stores an answer whose operation had nothing to commit: a refusal.
pub async fn finish_refusal(queue: &Queue, claim: &Claim, answer: Answer) -> sqlx::Result<()> {
    let mut tx = queue.db().begin().await?;
    store::finish(&mut tx, claim, Keep::Whole(answer)).await?;
    tx.commit().await
}

/// Gives the lock back without an answer, so that the request can be sent again at once.
pub async fn release(queue: &Queue, claim: &Claim) -> sqlx::Result<()> {
    let mut tx = queue.db().begin().await?;
    store::release(&mut tx, claim).await?;
    tx.commit().await
}

/// Removes answers that are no longer replayed, a thousand at most; answers whether there may be more.
pub async fn prune(tx: &mut Tx) -> sqlx::Result<bool> {
    let gone = store::prune(tx.conn().await?, MOST_PRUNED).await?;
    Ok(gone >= MOST_PRUNED.unsigned_abs())
}

/// Removes the answers of a tenant that goes, so many at most; answers how many.
pub(crate) async fn erase(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    store::erase(conn, tenant, most).await
}
