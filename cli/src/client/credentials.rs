//! Saved logins: one for each server, in a file that only its owner reads. What is kept in a keyring has
//! a line in the file that says so.

use std::{
    collections::BTreeMap,
    fs::DirBuilder,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamspace_common::Secret;
use url::Url;

use crate::{
    console,
    failure::Advice,
    private_file::{self, Existing},
};

/// What opens a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Login {
    Key(Secret<String>),
    Tokens(Tokens),
}

/// Of a sign-in.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    pub access: Secret<String>,
    /// Good once: it is exchanged for the next of both. Whoever comes with it a second time ends the
    /// sign-in.
    pub refresh: Secret<String>,
    /// When the access token ends, by this machine's clock.
    pub ends_at: Timestamp,
    /// Whose they are, by id.
    pub user: String,
}

/// A token that ends before a request has arrived is worth none.
const MARGIN: Duration = Duration::from_secs(20);

impl Tokens {
    pub fn are_fresh(&self) -> bool {
        self.ends_at > Timestamp::now() + MARGIN
    }
}

/// A login, or where it lies.
#[derive(Clone, Debug, PartialEq)]
pub enum Saved {
    Here(Login),
    InKeyring,
}

#[derive(Clone, Debug, Default)]
pub struct Credentials {
    default: Option<Url>,
    logins: BTreeMap<Url, Saved>,
}

/// As the file has it. A `Secret` never serialises its value, so the file has a form of its own.
#[derive(Default, Serialize, Deserialize)]
struct OnDisk {
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Url>,
    #[serde(default)]
    servers: BTreeMap<Url, Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Key { api_key: String },
    Tokens { user: String, access_token: String, ends_at: Timestamp, refresh_token: String },
    Keyring { keyring: bool },
}

impl From<&Login> for Entry {
    fn from(login: &Login) -> Self {
        match login {
            Login::Key(key) => Self::Key { api_key: key.expose().clone() },
            Login::Tokens(tokens) => Self::Tokens {
                user: tokens.user.clone(),
                access_token: tokens.access.expose().clone(),
                ends_at: tokens.ends_at,
                refresh_token: tokens.refresh.expose().clone(),
            },
        }
    }
}

impl From<Entry> for Saved {
    fn from(entry: Entry) -> Self {
        Self::Here(match entry {
            Entry::Key { api_key } => Login::Key(api_key.into()),
            Entry::Tokens { user, access_token, ends_at, refresh_token } => Login::Tokens(Tokens {
                access: access_token.into(),
                refresh: refresh_token.into(),
                ends_at,
                user,
            }),
            Entry::Keyring { .. } => return Self::InKeyring,
        })
    }
}

impl Login {
    /// On one line, for a keyring.
    pub fn written(&self) -> Secret<String> {
        Secret::new(serde_json::to_string(&Entry::from(self)).unwrap_or_default())
    }

    pub fn read(text: &Secret<String>) -> Option<Self> {
        match serde_json::from_str::<Entry>(text.expose()).ok()?.into() {
            Saved::Here(login) => Some(login),
            Saved::InKeyring => None,
        }
    }
}

/// `~/.config/streamspace/credentials.toml`.
pub fn path() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set("XDG_CONFIG_HOME")
        .or_else(|| Some(set("HOME")?.join(".config")))
        .map(|dir| dir.join("streamspace").join("credentials.toml"))
        .context("HOME is not set, so no login can be saved")
}

/// Makes the file's folder, for its owner alone.
pub fn make_folder(path: &Path) -> Result<()> {
    let context = || format!("cannot save logins in {}", path.display());
    let dir = path.parent().with_context(context)?;
    DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(context)
}

impl Credentials {
    /// Nobody logged in: nothing.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        if path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0) {
            console::say(format_args!("warning: others may read {}: chmod 600 it", path.display()));
        }
        // Not the parser's own message: it quotes the line, and with it the key.
        let file: OnDisk = toml::from_str(&text).map_err(|_| {
            Advice::new(
                format!("{} is not a file of saved logins", path.display()),
                "remove it and log in again: streamspace login",
            )
        })?;
        let logins = file.servers.into_iter().map(|(url, entry)| (url, entry.into())).collect();
        Ok(Self { default: file.default, logins })
    }

    /// Readers see the old file or the new one, also when the machine stops in between.
    pub fn store(&self, path: &Path) -> Result<()> {
        make_folder(path)?;
        let context = || format!("cannot save the login in {}", path.display());
        let entry = |saved: &Saved| match saved {
            Saved::Here(login) => login.into(),
            Saved::InKeyring => Entry::Keyring { keyring: true },
        };
        let file = OnDisk {
            default: self.default.clone(),
            servers: self.logins.iter().map(|(url, saved)| (url.clone(), entry(saved))).collect(),
        };
        let text = Secret::new(toml::to_string(&file).with_context(context)?);
        private_file::write(path, text.expose(), Existing::Replace).with_context(context)
    }

    pub fn default_url(&self) -> Option<&Url> {
        self.default.as_ref()
    }

    pub fn of(&self, url: &Url) -> Option<&Saved> {
        self.logins.get(url)
    }

    /// From now on commands use this server unless told otherwise.
    pub fn put(&mut self, url: &Url, saved: Saved) {
        self.logins.insert(url.clone(), saved);
        self.default = Some(url.clone());
    }

    /// In the place of what is there; whether it is another.
    pub fn replace(&mut self, url: &Url, saved: Saved) -> bool {
        let before = self.logins.insert(url.clone(), saved);
        before.as_ref() != self.logins.get(url)
    }

    /// What remains alone becomes the default.
    pub fn remove(&mut self, url: &Url) -> Option<Saved> {
        let was_there = self.logins.remove(url);
        if self.default.as_ref() == Some(url) {
            self.default = match self.logins.len() {
                1 => self.logins.keys().next().cloned(),
                _ => None,
            };
        }
        was_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect("valid")
    }

    fn tokens() -> Login {
        Login::Tokens(Tokens {
            access: "eyJ".into(),
            refresh: "rt_two".into(),
            ends_at: "2026-11-21T18:00:00Z".parse().expect("a time"),
            user: "0199".to_owned(),
        })
    }

    #[test]
    fn logins_survive_in_a_file_for_its_owner_alone() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("config/streamspace/credentials.toml");
        assert!(Credentials::load(&path).expect("no file is no login").default_url().is_none());

        let mut credentials = Credentials::default();
        let saved = [
            ("https://one.example/", Saved::Here(Login::Key("sk_one".into()))),
            ("https://two.example/", Saved::Here(tokens())),
            ("https://three.example/", Saved::InKeyring),
        ];
        for (at, saved) in &saved {
            credentials.put(&url(at), saved.clone());
        }
        credentials.store(&path).expect("stored");
        let mode = path.metadata().expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let mut loaded = Credentials::load(&path).expect("readable");
        assert_eq!(loaded.default_url(), Some(&url("https://three.example/")));
        for (at, saved) in &saved {
            assert_eq!(loaded.of(&url(at)), Some(saved), "{at}");
        }
        assert!(loaded.remove(&url("https://two.example/")).is_some());
        assert!(loaded.remove(&url("https://three.example/")).is_some());
        assert_eq!(loaded.default_url(), Some(&url("https://one.example/")));
        assert!(loaded.remove(&url("https://two.example/")).is_none());
        assert_eq!(std::fs::read_dir(path.parent().expect("has one")).expect("readable").count(), 1);
    }

    #[test]
    fn a_damaged_file_does_not_show_its_keys() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("credentials.toml");
        for text in
            ["[servers.\"https://x\"]\napi_key = \"sk_secret", "[servers.\"https://x\"]\nkey = \"sk_secret\""]
        {
            std::fs::write(&path, text).expect("written");
            let error = Credentials::load(&path).expect_err("damaged");
            assert!(!format!("{error:?}").contains("sk_secret"), "{error:?}");
        }
    }

    #[test]
    fn what_a_keyring_has_is_read_back() {
        for login in [tokens(), Login::Key("sk_one".into())] {
            let written = login.written();
            assert!(!written.expose().contains('\n'));
            assert_eq!(Login::read(&written), Some(login));
        }
        assert_eq!(Login::read(&"{\"keyring\":true}".into()), None);
        assert_eq!(Login::read(&"sk_".into()), None);
    }
}
