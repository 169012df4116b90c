//! What was fetched, and is fetched anew when it is too old: by one for all who wait for it.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use streamspace_domain::oidc::Unanswered;

/// More providers than an installation has; whoever names ever new ones does not fill the memory.
const MOST: usize = 256;

#[derive(Debug)]
pub(crate) struct Cache<T> {
    entries: Mutex<HashMap<String, Arc<Entry<T>>>>,
}

type Entry<T> = tokio::sync::Mutex<Option<Held<T>>>;

#[derive(Debug)]
pub(crate) struct Held<T> {
    pub(crate) at: Instant,
    /// Somebody wanted it newer than it was.
    pub(crate) renewed: bool,
    pub(crate) value: Result<Arc<T>, Unanswered>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<T> Cache<T> {
    /// What is held, when it will do; otherwise what `fetch` brings. Of those who come at once one
    /// fetches and the others take the same answer, also when it is a failure.
    pub(crate) async fn get(
        &self,
        key: &str,
        renewed: bool,
        will_do: impl FnOnce(&Held<T>) -> bool,
        fetch: impl Future<Output = Result<T, Unanswered>>,
    ) -> Result<Arc<T>, Unanswered> {
        let asked = Instant::now();
        let entry = self.entry(key);
        let mut held = entry.lock().await;
        if let Some(held) = held.as_ref().filter(|held| held.at > asked || will_do(held)) {
            return held.value.clone();
        }
        let value = fetch.await.map(Arc::new);
        *held = Some(Held { at: Instant::now(), renewed, value: value.clone() });
        value
    }

    fn entry(&self, key: &str) -> Arc<Entry<T>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MOST && !entries.contains_key(key) {
            entries.clear(); // rare, and costs each a fetch
        }
        Arc::clone(entries.entry(key.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    async fn fetched(count: &AtomicUsize) -> Result<usize, Unanswered> {
        tokio::task::yield_now().await;
        Ok(count.fetch_add(1, Ordering::Relaxed))
    }

    #[tokio::test]
    async fn one_fetches_for_all_who_wait() {
        let (cache, count) = (Cache::default(), AtomicUsize::new(0));
        let all = (0..20).map(|_| cache.get("a", false, |held| held.value.is_ok(), fetched(&count)));
        assert!(join_all(all).await.into_iter().all(|value| value == Ok(Arc::new(0))));
        assert_eq!(cache.get("b", false, |_| true, fetched(&count)).await, Ok(Arc::new(1)));
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_those_who_waited_and_tried_again_by_the_next() {
        let cache: Cache<usize> = Cache::default();
        let count = AtomicUsize::new(0);
        let fail = || async {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err(Unanswered::Unreadable)
        };
        let all = (0..20).map(|_| cache.get("a", false, |held| held.value.is_ok(), fail()));
        assert!(join_all(all).await.into_iter().all(|value| value == Err(Unanswered::Unreadable)));
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert_eq!(cache.get("a", false, |held| held.value.is_ok(), async { Ok(7) }).await, Ok(Arc::new(7)));
    }

    #[tokio::test]
    async fn ever_new_keys_are_forgotten() {
        let cache: Cache<usize> = Cache::default();
        for key in 0..3 * MOST {
            let _ = cache.get(&key.to_string(), false, |_| true, async { Ok(key) }).await;
        }
        assert!(cache.entries.lock().expect("not poisoned").len() <= MOST);
    }
}
