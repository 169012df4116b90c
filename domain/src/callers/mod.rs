//! Who comes with a credential: a key, an access token or a browser's cookie.
//!
//! The answer is one statement, and kept for a second: a busy caller costs the database one read a
//! second, and what changes about one (a role, a key that was revoked, a person who was disabled) acts
//! within a second in every process; in the one that changed it at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use streamspace_common::{Actor, ApiKeyId, SignInId};
use streamspace_queue::Queue;

use crate::{
    api_keys::{self, Scopes},
    opaque::{Form, Hash},
    sign_in::{self, Tokens},
};

/// What somebody came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    Key(ApiKeyId),
    SignIn(SignInId),
}

/// Whoever a credential stands for, as of at most a second ago.
#[derive(Clone, Debug)]
pub struct Checked {
    pub credential: Credential,
    pub actor: Actor,
    pub scopes: Scopes,
    /// Of a key.
    pub hourly_limit: Option<u32>,
    /// A browser sends it by itself, so what it asks for must come from our own pages.
    pub by_cookie: bool,
    /// Of an access token.
    pub expires_at: Option<Timestamp>,
    /// The tenant wants a second factor, and this person has none yet.
    pub must_enrol: bool,
}

impl Checked {
    pub fn key(&self) -> Option<ApiKeyId> {
        match self.credential {
            Credential::Key(key) => Some(key),
            Credential::SignIn(_) => None,
        }
    }

    pub fn sign_in(&self) -> Option<SignInId> {
        match self.credential {
            Credential::Key(_) => None,
            Credential::SignIn(sign_in) => Some(sign_in),
        }
    }

    /// The access token has had its time.
    pub fn is_over(&self) -> bool {
        self.expires_at.is_some_and(|end| end <= Timestamp::now())
    }
}

/// What a request carries.
#[derive(Clone, Copy, Debug)]
pub enum Presented<'a> {
    /// An API key or an access token.
    Bearer(&'a str),
    Cookie(&'a str),
}

const FRESH: Duration = Duration::from_secs(1);
const MOST_CACHED: usize = 10_000;

/// The callers of one process. Clones share it.
#[derive(Clone)]
pub struct Callers(Arc<Inner>);

struct Inner {
    queue: Queue,
    tokens: Tokens,
    /// Whether a second factor is wanted where the tenant says nothing.
    mfa: bool,
    cache: Mutex<HashMap<Hash, Arc<Entry>>>,
}

#[derive(Default)]
struct Entry {
    latest: RwLock<Option<(Instant, Arc<Checked>)>>,
    /// Held by the one who asks the database while the others wait for its answer.
    asking: tokio::sync::Mutex<()>,
}

impl Entry {
    fn fresh(&self) -> Option<Arc<Checked>> {
        let latest = self.latest.read().expect("no panic while it was held");
        latest
            .as_ref()
            .filter(|(at, checked)| at.elapsed() < FRESH && !checked.is_over())
            .map(|(_, checked)| checked.clone())
    }
}

/// A credential that has its form; what it looks like decides where it is looked up.
enum Known<'a> {
    Key(Hash),
    Cookie(Hash),
    Token(&'a str),
}

impl<'a> Known<'a> {
    fn of(presented: Presented<'a>) -> Option<Self> {
        match presented {
            Presented::Cookie(text) => Form::COOKIE.hash(text).map(Self::Cookie),
            Presented::Bearer(text) => match Form::API_KEY.hash(text) {
                Some(hash) => Some(Self::Key(hash)),
                None => sign_in::looks_like_token(text).then_some(Self::Token(text)),
            },
        }
    }

    /// Forms begin differently, so no two credentials have one hash.
    fn hash(&self) -> Hash {
        match self {
            Self::Key(hash) | Self::Cookie(hash) => *hash,
            Self::Token(text) => Sha256::digest(text.as_bytes()).into(),
        }
    }
}

impl Callers {
    pub fn new(queue: Queue, tokens: Tokens, mfa: bool) -> Self {
        Self(Arc::new(Inner { queue, tokens, mfa, cache: Mutex::default() }))
    }

    /// `None`: there is no such credential, or nobody may come with it now.
    pub async fn check(&self, presented: Presented<'_>) -> sqlx::Result<Option<Arc<Checked>>> {
        let Some(known) = Known::of(presented) else { return Ok(None) };
        let hash = known.hash();
        let entry = self.entry(hash);
        match entry.fresh() {
            Some(checked) => Ok(Some(checked)),
            None => self.ask(&known, hash, &entry).await,
        }
    }

    /// Whoever came with this key or token within the last second: what a busy caller costs.
    pub fn at_hand(&self, bearer: &str) -> Option<Arc<Checked>> {
        let hash = Known::of(Presented::Bearer(bearer))?.hash();
        let entry = self.0.cache.lock().expect("no panic while it was held").get(&hash).cloned();
        entry?.fresh()
    }

    async fn ask(&self, known: &Known<'_>, hash: Hash, entry: &Entry) -> sqlx::Result<Option<Arc<Checked>>> {
        let _asking = entry.asking.lock().await;
        if let Some(checked) = entry.fresh() {
            return Ok(Some(checked));
        }
        // The age counts from before the question: what changes during it is not seen.
        let asked = Instant::now();
        let checked = self.look_up(known).await?.map(Arc::new);
        *entry.latest.write().expect("no panic while it was held") =
            checked.clone().map(|checked| (asked, checked));
        if checked.is_none() {
            // Guesses leave nothing behind.
            self.0.cache.lock().expect("no panic while it was held").remove(&hash);
        }
        Ok(checked)
    }

    async fn look_up(&self, known: &Known<'_>) -> sqlx::Result<Option<Checked>> {
        let Inner { queue, tokens, mfa, .. } = &*self.0;
        match known {
            Known::Key(hash) => api_keys::callers_store::by_hash(&mut *queue.read().await?, hash).await,
            Known::Cookie(hash) => {
                sign_in::callers_store::by_cookie(&mut *queue.read().await?, hash, *mfa).await
            }
            Known::Token(text) => {
                let Some(claims) = tokens.verify(text).await? else { return Ok(None) };
                let found =
                    sign_in::callers_store::by_id(&mut *queue.read().await?, claims.sign_in, *mfa).await?;
                // The token's own words are believed of nothing but the sign-in that it is of.
                Ok(found
                    .filter(|checked| checked.actor.tenant == claims.tenant)
                    .filter(|checked| checked.actor.user == Some(claims.user))
                    .map(|checked| Checked { expires_at: Some(claims.expires_at), ..checked }))
            }
        }
    }

    fn entry(&self, hash: Hash) -> Arc<Entry> {
        let mut cache = self.0.cache.lock().expect("no panic while it was held");
        if cache.len() >= MOST_CACHED && !cache.contains_key(&hash) {
            cache.retain(|_, entry| entry.fresh().is_some());
            if cache.len() >= MOST_CACHED {
                cache.clear();
            }
        }
        cache.entry(hash).or_default().clone()
    }

    /// Who of these may still act, and as whom: for streams, which outlive a request.
    pub async fn still(
        &self,
        credentials: impl IntoIterator<Item = Credential>,
    ) -> sqlx::Result<HashMap<Credential, Arc<Checked>>> {
        let (mut keys, mut sign_ins) = (Vec::new(), Vec::new());
        for credential in credentials {
            match credential {
                Credential::Key(key) => keys.push(key.0),
                Credential::SignIn(sign_in) => sign_ins.push(sign_in.0),
            }
        }
        let mut still = HashMap::new();
        if keys.is_empty() && sign_ins.is_empty() {
            return Ok(still);
        }
        let mut conn = self.0.queue.read().await?;
        if !keys.is_empty() {
            let checked = api_keys::callers_store::by_ids(&mut conn, &keys).await?;
            still.extend(checked.into_iter().map(|checked| (checked.credential, Arc::new(checked))));
        }
        if !sign_ins.is_empty() {
            let checked = sign_in::callers_store::by_ids(&mut conn, &sign_ins, self.0.mfa).await?;
            still.extend(checked.into_iter().map(|checked| (checked.credential, Arc::new(checked))));
        }
        Ok(still)
    }

    /// Asks anew at the next request: for the process that has changed whom this is about.
    pub fn forget(&self, whom: impl Fn(&Checked) -> bool) {
        let mut cache = self.0.cache.lock().expect("no panic while it was held");
        cache.retain(|_, entry| {
            let latest = entry.latest.read().expect("no panic while it was held");
            // An answer that is on its way may be of before: nobody who comes from now on gets it.
            latest.as_ref().is_some_and(|(_, checked)| !whom(checked))
        });
    }
}
