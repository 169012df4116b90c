//! Who comes with a key. The answer is kept for a second, so that a busy key costs the database one
//! read a second, and a key that was revoked works for no longer than that.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

use streamspace_common::{Actor, ApiKeyId};
use streamspace_queue::Queue;

use super::{
    Scopes,
    secret::{self, Hash},
    store,
};

/// Whoever a key stands for, as of at most a second ago.
#[derive(Clone, Debug)]
pub struct Checked {
    pub key: ApiKeyId,
    pub actor: Actor,
    pub scopes: Scopes,
    pub hourly_limit: u32,
}

const FRESH: Duration = Duration::from_secs(1);
const MOST_CACHED: usize = 10_000;

/// The keys of one process. Clones share it.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    queue: Queue,
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
        latest.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, checked)| checked.clone())
    }
}

impl Keys {
    pub fn new(queue: Queue) -> Self {
        Self(Arc::new(Inner { queue, cache: Mutex::default() }))
    }

    /// `None`: there is no such key, or nobody may come with it now.
    pub async fn check(&self, presented: &str) -> sqlx::Result<Option<Arc<Checked>>> {
        let Some(hash) = secret::hash(presented) else { return Ok(None) };
        let entry = self.entry(hash);
        match entry.fresh() {
            Some(checked) => Ok(Some(checked)),
            None => self.ask(hash, &entry).await,
        }
    }

    async fn ask(&self, hash: Hash, entry: &Entry) -> sqlx::Result<Option<Arc<Checked>>> {
        let _asking = entry.asking.lock().await;
        if let Some(checked) = entry.fresh() {
            return Ok(Some(checked));
        }
        // The age counts from before the question: what changes during it is not seen.
        let asked = Instant::now();
        let checked = store::by_hash(&mut *self.0.queue.read().await?, &hash).await?.map(Arc::new);
        *entry.latest.write().expect("no panic while it was held") =
            checked.clone().map(|checked| (asked, checked));
        if checked.is_none() {
            // Guesses leave nothing behind.
            self.0.cache.lock().expect("no panic while it was held").remove(&hash);
        }
        Ok(checked)
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
        keys: impl IntoIterator<Item = ApiKeyId>,
    ) -> sqlx::Result<HashMap<ApiKeyId, Arc<Checked>>> {
        let keys: Vec<_> = keys.into_iter().map(|key| key.0).collect();
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let checked = store::by_ids(&mut *self.0.queue.read().await?, &keys).await?;
        Ok(checked.into_iter().map(|checked| (checked.key, Arc::new(checked))).collect())
    }

    /// Asks anew at the next request: for the process that has changed a key.
    pub fn forget(&self, key: ApiKeyId) {
        let mut cache = self.0.cache.lock().expect("no panic while it was held");
        cache.retain(|_, entry| {
            let latest = entry.latest.read().expect("no panic while it was held");
            latest.as_ref().is_none_or(|(_, checked)| checked.key != key)
        });
    }
}
