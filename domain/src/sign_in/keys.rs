//! The keys that sign access tokens. They lie sealed in the database, so that every process signs with
//! the same and none of them can be read from a backup. A new one every month; the old one verifies
//! until every token that it has signed is over.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use streamspace_common::{
    MasterKeys, Place, Sealed, Secret,
    jws::{Ed25519Signer, PublicKey},
};
use streamspace_queue::Queue;
use tracing::warn;
use uuid::Uuid;

use super::{Error, keys_store as store};

const AGE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The longest that a token may work is 12 h.
const VERIFIES: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone)]
pub(super) struct Key {
    pub id: Uuid,
    pub public: [u8; 32],
    private: Sealed,
    created_at: Timestamp,
}

/// A key that was opened.
pub(super) struct Signer {
    id: String,
    key: Ed25519Signer,
}

fn place(id: Uuid) -> Place {
    Place { table: "signing_keys", column: "private_key", row: id }
}

impl Key {
    pub fn age(&self) -> SignedDuration {
        Timestamp::now().duration_since(self.created_at)
    }

    /// Not sealed under a master key that is lost.
    pub fn opens(&self, master: &MasterKeys) -> bool {
        master.open(place(self.id), &self.private).is_ok()
    }

    /// It needs no other to follow it.
    pub fn is_good(&self, master: &MasterKeys) -> bool {
        self.age() <= AGE && self.opens(master)
    }

    pub fn open(&self, master: &MasterKeys) -> Result<Signer, Error> {
        let private = master.open(place(self.id), &self.private).map_err(Error::Sealed)?;
        let key = Ed25519Signer::from_pkcs8(&private).map_err(|_| Error::NoKey)?;
        Ok(Signer { id: self.id.to_string(), key })
    }

    pub fn jwk(&self) -> Value {
        Ed25519Signer::published(&self.public, &self.id.to_string())
    }
}

impl Signer {
    pub fn sign(&self, form: &str, claims: &impl Serialize) -> Secret<String> {
        self.key.sign(form, &self.id, claims)
    }
}

/// Newest first.
pub(super) async fn all(conn: &mut PgConnection) -> sqlx::Result<Vec<Key>> {
    let rows = store::signing_keys(conn).await?;
    let key = |row: store::SigningKey| {
        let public = row.public.try_into().ok()?;
        Some(Key { id: row.id, public, private: row.private, created_at: row.created_at })
    };
    Ok(rows.into_iter().filter_map(key).collect())
}

/// Makes a new key unless somebody else just did, whose key this master key opens.
pub(super) async fn renew(queue: &Queue, master: &MasterKeys) -> Result<(), Error> {
    let mut tx = queue.db().begin().await?;
    store::lock_signing_keys(&mut tx).await?;
    let known = all(&mut tx).await?;
    if !known.iter().any(|key| key.is_good(master)) {
        if known.first().is_some_and(|newest| newest.age() <= AGE) {
            warn!("no key that signs can be opened by this master key: made a new one");
        }
        let id = Uuid::now_v7();
        let private = Ed25519Signer::generate();
        let signer = Ed25519Signer::from_pkcs8(&private).map_err(|_| Error::NoKey)?;
        let PublicKey::Ed25519(public) = signer.public_key() else { return Err(Error::NoKey) };
        let sealed = master.seal(place(id), private.expose());
        store::insert_signing_key(&mut tx, id, &public, sealed).await?;
    }
    Ok(tx.commit().await?)
}

/// Forgets keys whose tokens are all over.
pub(crate) async fn forget(conn: &mut PgConnection) -> sqlx::Result<()> {
    store::delete_signing_keys(conn, VERIFIES).await
}
