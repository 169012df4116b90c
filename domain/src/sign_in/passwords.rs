//! Hashing of passwords. It is slow on purpose, so a few threads do it, behind whatever else the machine
//! does, and the others wait for them.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use streamspace_common::{Secret, config::AuthConfig};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
};
use tracing::warn;

/// A tenth of what others get who want the same processor.
const NICE: i32 = 10;
/// Who waits at most, beyond those whose password is being hashed: some seconds.
const MOST_WAITING: usize = 200;

/// Hashes of one process. Clones share its threads.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    argon2: Argon2<'static>,
    /// Of a password that nobody has: looked at where there is no account, so that it takes as long.
    decoy: String,
    waiting: Semaphore,
    hashing: Arc<Semaphore>,
    /// Only its threads for what blocks are used: they can be made to give way, and those of everything
    /// else can not be taken for it.
    threads: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Busy {
    #[error("too many sign in at this moment")]
    Full,
    #[error("whoever asked has hung up")]
    Gone,
    #[error("hashing failed")]
    Failed,
}

/// What came of comparing a password with a hash.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    pub fits: bool,
    /// In place of a hash that is of another form or weaker than it should be.
    pub upgrade: Option<String>,
}

impl Passwords {
    pub fn new(config: &AuthConfig) -> Self {
        let params =
            Params::new(config.argon2_memory_kib, config.argon2_iterations, config.argon2_parallelism, None)
                .expect("the configuration is checked");
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let decoy = hash(&argon2, &rand::random::<[u8; 16]>()).expect("the parameters are good");
        // Half of the processors: the other half answers everything else.
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get() / 2).max(1);
        let running = Builder::new_current_thread()
            .thread_name("passwords")
            .max_blocking_threads(threads)
            .on_thread_start(give_way)
            .build()
            .expect("nothing of it is used that could fail");
        Self(Arc::new(Inner {
            argon2,
            decoy,
            waiting: Semaphore::new(MOST_WAITING + threads),
            hashing: Arc::new(Semaphore::new(threads)),
            threads: Some(running),
        }))
    }

    pub async fn hash(&self, password: Secret<String>) -> Result<String, Busy> {
        self.work(move |inner| hash(&inner.argon2, password.expose().as_bytes())).await?.ok_or(Busy::Failed)
    }

    /// Without a hash it fits nothing, and takes as long as with one of ours.
    pub async fn compare(&self, password: Secret<String>, stored: Option<String>) -> Result<Compared, Busy> {
        self.work(move |inner| inner.compare(password.expose().as_bytes(), stored.as_deref())).await
    }

    /// After it did not fit: what looking at a hash of another kind would have taken beyond this one, so that
    /// how long both take tells nothing. Where people of an import have not signed in yet, bcrypt's dearest is
    /// one of the kinds.
    pub(super) async fn rest(
        &self,
        password: Secret<String>,
        stored: Option<String>,
        bcrypt_cost: Option<u32>,
    ) -> Result<(), Busy> {
        self.work(move |inner| inner.rest(password.expose().as_bytes(), stored.as_deref(), bcrypt_cost)).await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let _waiting = self.0.waiting.try_acquire().map_err(|_| Busy::Full)?;
        let thread = self.0.hashing.clone().acquire_owned().await.map_err(|_| Busy::Failed)?;
        let inner = self.0.clone();
        let threads = self.0.threads.as_ref().expect("taken when the last one is dropped");
        let working = threads.spawn_blocking(move || {
            // It goes along: whoever hangs up does not let one more thread work.
            let _thread = thread;
            work(&inner)
        });
        working.await.map_err(|_| Busy::Failed)
    }
}

/// The thread, and nothing else of the process.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        warn!(%error, "hashing does not give way to what else runs");
    }
}

impl Inner {
    fn compare(&self, password: &[u8], stored: Option<&str>) -> Compared {
        let Some(stored) = stored else {
            let _ = argon2_fits(&self.decoy, password);
            return Compared::default();
        };
        let (fits, is_current) = match stored.starts_with("$2") {
            true => (bcrypt::verify(password, stored).unwrap_or(false), false),
            false => (argon2_fits(stored, password), self.is_current(stored)),
        };
        let upgrade = if fits && !is_current { hash(&self.argon2, password) } else { None };
        Compared { fits, upgrade }
    }

    fn rest(&self, password: &[u8], stored: Option<&str>, bcrypt_cost: Option<u32>) {
        let done = match stored {
            None => Done::Ours,
            Some(stored) if stored.starts_with("$2") => {
                let _ = argon2_fits(&self.decoy, password);
                Done::Bcrypt(bcrypt_cost_of(stored))
            }
            Some(stored) => {
                self.rest_of_argon2(password, stored);
                Done::Ours
            }
        };
        let Some(dearest) = bcrypt_cost else { return };
        // Each step takes as long as all before it together, and once more.
        let steps = match done {
            Done::Ours => dearest..dearest + 1,
            Done::Bcrypt(cost) => cost..dearest,
        };
        for cost in steps {
            let _ = bcrypt::hash_with_salt(password, cost, [0; 16]);
        }
    }

    /// What ours takes more than a hash of weaker parameters, in passes over as much memory.
    fn rest_of_argon2(&self, password: &[u8], stored: &str) {
        let Some(weak) = PasswordHash::new(stored).ok().and_then(|stored| Params::try_from(&stored).ok())
        else {
            return;
        };
        let ours = self.argon2.params();
        let work = |params: &Params| u64::from(params.m_cost()) * u64::from(params.t_cost());
        let memory = u64::from(ours.m_cost());
        let passes = (work(ours).saturating_sub(work(&weak)) + memory / 2) / memory;
        let Some(passes) = u32::try_from(passes).ok().filter(|passes| *passes > 0) else { return };
        if let Ok(params) = Params::new(ours.m_cost(), passes, ours.p_cost(), None) {
            let _ = hash(&Argon2::new(Algorithm::Argon2id, Version::V0x13, params), password);
        }
    }

    fn is_current(&self, stored: &str) -> bool {
        let Ok(stored) = PasswordHash::new(stored) else { return false };
        let Ok(params) = Params::try_from(&stored) else { return false };
        let wanted = self.argon2.params();
        stored.algorithm == argon2::ARGON2ID_IDENT
            && params.m_cost() >= wanted.m_cost()
            && params.t_cost() >= wanted.t_cost()
            && params.p_cost() == wanted.p_cost()
    }
}

/// What looking at a hash that did not fit was.
enum Done {
    Ours,
    Bcrypt(u32),
}

/// `$2b$12$…`; one that says nothing of the kind was not looked at for long.
fn bcrypt_cost_of(stored: &str) -> u32 {
    stored.split('$').nth(2).and_then(|cost| cost.parse().ok()).unwrap_or(4)
}

fn hash(argon2: &Argon2<'_>, password: &[u8]) -> Option<String> {
    argon2.hash_password(password).ok().map(|hash| hash.to_string())
}

fn argon2_fits(stored: &str, password: &[u8]) -> bool {
    PasswordHash::new(stored).is_ok_and(|stored| Argon2::default().verify_password(password, &stored).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Passwords {
        Passwords::new(&AuthConfig { argon2_memory_kib: 64, argon2_iterations: 1, ..Default::default() })
    }

    #[tokio::test]
    async fn a_password_fits_its_hash_alone() {
        let passwords = cheap();
        let hash = passwords.hash("correct horse".into()).await.expect("hashed");
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        let compared = passwords.compare("correct horse".into(), Some(hash.clone())).await.expect("compared");
        assert!(compared.fits && compared.upgrade.is_none());
        assert!(!passwords.compare("correct hors".into(), Some(hash)).await.expect("compared").fits);
        assert!(!passwords.compare("correct horse".into(), None).await.expect("compared").fits);
        for none in ["", "hunter2", "$2b$04$short", "$argon2id$v=19$m=1", "$1$abc$def"] {
            assert!(
                !passwords.compare("x".into(), Some(none.into())).await.expect("compared").fits,
                "{none:?}"
            );
        }
    }

    #[tokio::test]
    async fn an_old_hash_is_upgraded_when_its_password_fits() {
        let passwords = cheap();
        let old = bcrypt::hash("correct horse", 4).expect("hashed");
        let wrong = passwords.compare("wrong".into(), Some(old.clone())).await.expect("compared");
        assert!(!wrong.fits && wrong.upgrade.is_none());
        let right = passwords.compare("correct horse".into(), Some(old)).await.expect("compared");
        let upgrade = right.upgrade.expect("it was bcrypt");
        assert!(right.fits && upgrade.starts_with("$argon2id$"));

        let stronger = Passwords::new(&AuthConfig {
            argon2_memory_kib: 128,
            argon2_iterations: 1,
            ..Default::default()
        });
        let weak = stronger.compare("correct horse".into(), Some(upgrade)).await.expect("compared");
        assert!(weak.upgrade.expect("it was cheap").contains("m=128"));
    }

    #[tokio::test]
    async fn who_finds_the_line_full_is_told_so_and_the_line_goes_on() {
        // Some milliseconds for each.
        let passwords = Passwords::new(&AuthConfig {
            argon2_memory_kib: 4096,
            argon2_iterations: 1,
            ..Default::default()
        });
        let hash = || passwords.hash("correct horse".into());
        let all = futures::future::join_all((0..MOST_WAITING + 100).map(|_| hash())).await;
        let full = all.iter().filter(|hashed| matches!(hashed, Err(Busy::Full))).count();
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get() / 2).max(1);
        assert_eq!(full, 100 - threads, "as many as there are places are hashed");
        assert!(hash().await.is_ok());
    }
}
