//! Access tokens: JWTs that say whose they are, signed with Ed25519. A token names its sign-in and is
//! good while that is, so the signature only spares the database the guesses of strangers; what
//! somebody may is read with the sign-in.

use std::{
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamspace_common::{
    Config, MasterKeys, Role, Secret, SignInId, TenantId, UserId,
    jws::{Jws, PublicKey},
};
use streamspace_queue::Queue;
use uuid::Uuid;

use super::{
    Error,
    keys::{self, Key},
};

/// RFC 9068.
const TYPE: &str = "at+jwt";
/// Keys are read again this often…
const FRESH: Duration = Duration::from_secs(60);
/// …and for a token of a key that is not among them, but no more often than this: anybody can name keys.
const PAUSE: Duration = Duration::from_secs(1);
/// A new key signs only when everybody who verifies has had the time to read it.
const PUBLISHED: SignedDuration = SignedDuration::from_mins(6);

/// Signs and verifies for one process. Clones share it.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    queue: Queue,
    master: MasterKeys,
    issuer: String,
    lifetime: Duration,
    keys: RwLock<Option<Arc<Keys>>>,
    /// When keys were last read for one that was not among them.
    sought: Mutex<Option<Instant>>,
    asking: tokio::sync::Mutex<()>,
}

struct Keys {
    /// Newest first.
    known: Vec<Key>,
    read_at: Instant,
}

#[derive(Serialize, Deserialize)]
struct Words {
    iss: String,
    sub: Uuid,
    tid: Uuid,
    sid: Uuid,
    role: Role,
    iat: i64,
    exp: i64,
}

/// What a token says that its signature vouches for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claims {
    pub user: UserId,
    pub tenant: TenantId,
    pub sign_in: SignInId,
    pub expires_at: Timestamp,
}

/// Whether text is worth verifying.
pub(crate) fn looks_like_token(text: &str) -> bool {
    text.starts_with("eyJ")
}

impl Tokens {
    pub fn new(queue: Queue, master: MasterKeys, config: &Config) -> Self {
        Self(Arc::new(Inner {
            queue,
            master,
            issuer: config.server.public_url(),
            lifetime: config.auth.access_token_ttl,
            keys: RwLock::default(),
            sought: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }))
    }

    pub fn lifetime(&self) -> Duration {
        self.0.lifetime
    }

    pub(super) fn issue(
        &self,
        signer: &keys::Signer,
        tenant: TenantId,
        user: UserId,
        role: Role,
        sign_in: SignInId,
    ) -> Secret<String> {
        let now = Timestamp::now().as_second();
        let lifetime = i64::try_from(self.0.lifetime.as_secs()).unwrap_or(i64::MAX);
        let words = Words {
            iss: self.0.issuer.clone(),
            sub: user.0,
            tid: tenant.0,
            sid: sign_in.0,
            role,
            iat: now,
            exp: now.saturating_add(lifetime),
        };
        signer.sign(TYPE, &words)
    }

    /// `None`: it is none of ours, or over.
    pub(crate) async fn verify(&self, text: &str) -> sqlx::Result<Option<Claims>> {
        let Ok(token) = Jws::parse(text) else { return Ok(None) };
        let key = token.kid().and_then(|kid| Uuid::try_parse(kid).ok());
        let (Some(key), Some(TYPE)) = (key, token.typ()) else { return Ok(None) };
        let Some(key) = self.public_key(key).await? else { return Ok(None) };
        Ok(token.verify(&key).ok().and_then(|payload| self.read(payload)))
    }

    fn read(&self, payload: &[u8]) -> Option<Claims> {
        let words: Words = serde_json::from_slice(payload).ok()?;
        let expires_at = Timestamp::from_second(words.exp).ok()?;
        let good = words.iss == self.0.issuer && expires_at > Timestamp::now();
        good.then_some(Claims {
            user: words.sub.into(),
            tenant: words.tid.into(),
            sign_in: words.sid.into(),
            expires_at,
        })
    }

    /// The keys by which others verify our tokens: RFC 7517.
    pub async fn jwks(&self) -> sqlx::Result<Value> {
        let keys = self.keys(FRESH).await?;
        Ok(json!({ "keys": keys.known.iter().map(Key::jwk).collect::<Vec<_>>() }))
    }

    async fn public_key(&self, id: Uuid) -> sqlx::Result<Option<PublicKey>> {
        let find = |keys: &Keys| {
            keys.known.iter().find(|key| key.id == id).map(|key| PublicKey::Ed25519(key.public))
        };
        if let Some(found) = find(&*self.keys(FRESH).await?) {
            return Ok(Some(found));
        }
        if !self.may_seek() {
            return Ok(None);
        }
        Ok(find(&*self.keys(Duration::ZERO).await?))
    }

    fn may_seek(&self) -> bool {
        let mut sought = self.0.sought.lock().expect("no panic while it was held");
        let may = sought.is_none_or(|sought| sought.elapsed() >= PAUSE);
        if may {
            *sought = Some(Instant::now());
        }
        may
    }

    /// The newest key that has been published for a while and can be opened, or the only one; makes the next
    /// when the newest is old.
    pub(super) async fn signer(&self) -> Result<keys::Signer, Error> {
        let mut keys = self.keys(FRESH).await?;
        let master = &self.0.master;
        if !keys.known.iter().any(|key| key.is_good(master)) {
            keys::renew(&self.0.queue, master).await?;
            keys = self.keys(Duration::ZERO).await?;
        }
        let ours: Vec<_> = keys.known.iter().filter(|key| key.opens(master)).collect();
        let published = ours.iter().find(|key| key.age() > PUBLISHED);
        published.or(ours.last()).ok_or(Error::NoKey)?.open(master)
    }

    /// As of at most so long ago.
    async fn keys(&self, fresh: Duration) -> sqlx::Result<Arc<Keys>> {
        let latest = || {
            let keys = self.0.keys.read().expect("no panic while it was held");
            keys.as_ref().filter(|keys| keys.read_at.elapsed() < fresh).cloned()
        };
        if let Some(keys) = latest() {
            return Ok(keys);
        }
        let _asking = self.0.asking.lock().await;
        if let Some(keys) = latest() {
            return Ok(keys);
        }
        let read_at = Instant::now();
        let known = keys::all(&mut *self.0.queue.read().await?).await?;
        let keys = Arc::new(Keys { known, read_at });
        *self.0.keys.write().expect("no panic while it was held") = Some(keys.clone());
        Ok(keys)
    }
}
