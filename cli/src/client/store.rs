//! Where saved logins are kept, and the lock under which they change.
//!
//! A refresh token is good once. Two commands that find the same one would end the sign-in between them;
//! so whoever exchanges one holds the lock from reading it to writing down the next.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::time::Instant;
use url::Url;

use super::{
    credentials::{self, Credentials, Login, Saved},
    keyring::Keyring,
};
use crate::{console, failure::Advice};

/// Longer than a command holds it: a request, and a keyring that has to be unlocked.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

/// The logins of a store while nobody else changes them.
pub struct Locked {
    path: PathBuf,
    pub credentials: Credentials,
    /// Its end releases the lock, however the process ends.
    _lock: File,
}

/// Where a login goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Else the file.
    Keyring,
    File,
}

impl Store {
    pub fn of_process() -> Result<Self> {
        Ok(Self { path: credentials::path()? })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn read(&self) -> Result<Credentials> {
        Credentials::load(&self.path)
    }

    pub async fn lock(&self) -> Result<Locked> {
        credentials::make_folder(&self.path)?;
        let path = self.path.with_extension("lock");
        let context = || format!("cannot lock {}", path.display());
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(context)?;
        let end = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < end => tokio::time::sleep(PAUSE).await,
                Err(TryLockError::WouldBlock) => {
                    let message = format!("another command has kept {} locked for too long", path.display());
                    return Err(Advice::new(message, "end it, then try again").into());
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(context),
            }
        }
        // Only now: whoever held the lock may have written.
        Ok(Locked { credentials: self.read()?, path: self.path.clone(), _lock: lock })
    }
}

/// The login itself, wherever it lies.
pub async fn fetch(url: &Url, saved: &Saved) -> Result<Login> {
    if let Saved::Here(login) = saved {
        return Ok(login.clone());
    }
    let lost = |message: String| {
        Advice::new(message, format!("unlock the keyring, or log in again: streamspace login --url {url}"))
    };
    let keyring = Keyring::find()
        .ok_or_else(|| lost(format!("the login for {url} lies in a keyring, and this session has none")))?;
    let text = keyring.get(url).await.with_context(|| lost(format!("the login for {url} cannot be read")))?;
    let login = text.as_ref().and_then(Login::read);
    Ok(login.ok_or_else(|| lost(format!("the keyring has no login for {url}")))?)
}

impl Locked {
    pub async fn login(&self, url: &Url) -> Result<Option<Login>> {
        match self.credentials.of(url) {
            Some(saved) => fetch(url, saved).await.map(Some),
            None => Ok(None),
        }
    }

    /// From now on commands use this server unless told otherwise. Answers where the login lies now.
    pub async fn put(&mut self, url: &Url, login: &Login, place: Place) -> Result<Place> {
        let place = match place {
            Place::Keyring => keep(url, login).await,
            Place::File => Place::File,
        };
        let before = self.credentials.of(url).cloned();
        self.credentials.put(url, place.of(login));
        self.credentials.store(&self.path)?;
        if place == Place::File && before == Some(Saved::InKeyring) {
            forget(url).await;
        }
        Ok(place)
    }

    /// The next tokens of a login, where the last ones were.
    pub async fn renew(&mut self, url: &Url, login: &Login) -> Result<()> {
        let place = match self.credentials.of(url) {
            Some(Saved::InKeyring) => keep(url, login).await,
            _ => Place::File,
        };
        if self.credentials.replace(url, place.of(login)) {
            self.credentials.store(&self.path)?;
        }
        Ok(())
    }

    /// Whether there was one.
    pub async fn remove(&mut self, url: &Url) -> Result<bool> {
        let Some(saved) = self.credentials.remove(url) else { return Ok(false) };
        self.credentials.store(&self.path)?;
        if saved == Saved::InKeyring {
            forget(url).await;
        }
        Ok(true)
    }
}

impl Place {
    fn of(self, login: &Login) -> Saved {
        match self {
            Self::Keyring => Saved::InKeyring,
            Self::File => Saved::Here(login.clone()),
        }
    }
}

/// In the keyring, if there is one and it takes it.
async fn keep(url: &Url, login: &Login) -> Place {
    let Some(keyring) = Keyring::find() else { return Place::File };
    match keyring.put(url, &login.written()).await {
        Ok(()) => Place::Keyring,
        Err(error) => {
            console::say(format_args!("warning: the keyring is not used: {error:#}"));
            Place::File
        }
    }
}

async fn forget(url: &Url) {
    let Some(keyring) = Keyring::find() else { return };
    if let Err(error) = keyring.remove(url).await {
        console::say(format_args!("warning: the keyring still has the login for {url}: {error:#}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_the_lock_reads_what_was_written_under_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store { path: dir.path().join("streamspace/credentials.toml") };
        let url: Url = "https://one.example/".parse().expect("valid");
        let login = Login::Key("sk_one".into());

        let mut first = store.lock().await.expect("free");
        let second = tokio::spawn({
            let store = store.clone();
            async move { store.lock().await }
        });
        tokio::time::sleep(PAUSE * 3).await;
        assert!(!second.is_finished());
        first.put(&url, &login, Place::File).await.expect("saved");
        drop(first);
        let second = second.await.expect("no panic").expect("free");
        assert_eq!(second.login(&url).await.expect("read"), Some(login));
    }
}
