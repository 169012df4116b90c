//! Saved logins: one key for each server, in a file that only its owner reads.

use std::{
    collections::BTreeMap,
    fs::DirBuilder,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use streamspace_common::Secret;
use url::Url;

use crate::{
    console,
    failure::Advice,
    private_file::{self, Existing},
};

#[derive(Clone, Debug, Default)]
pub struct Credentials {
    default: Option<Url>,
    keys: BTreeMap<Url, Secret<String>>,
}

/// As the file has it. A `Secret` never serialises its value, so the file has a form of its own.
#[derive(Default, Serialize, Deserialize)]
struct OnDisk {
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Url>,
    #[serde(default)]
    servers: BTreeMap<Url, Login>,
}

#[derive(Serialize, Deserialize)]
struct Login {
    api_key: String,
}

/// `~/.config/streamspace/credentials.toml`.
pub fn path() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set("XDG_CONFIG_HOME")
        .or_else(|| Some(set("HOME")?.join(".config")))
        .map(|dir| dir.join("streamspace").join("credentials.toml"))
        .context("HOME is not set, so no login can be saved")
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
        let keys = file.servers.into_iter().map(|(url, login)| (url, login.api_key.into())).collect();
        Ok(Self { default: file.default, keys })
    }

    /// Readers see the old file or the new one, also when the machine stops in between.
    pub fn store(&self, path: &Path) -> Result<()> {
        let context = || format!("cannot save the login in {}", path.display());
        let dir = path.parent().with_context(context)?;
        DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(context)?;
        let file = OnDisk {
            default: self.default.clone(),
            servers: self
                .keys
                .iter()
                .map(|(url, key)| (url.clone(), Login { api_key: key.expose().clone() }))
                .collect(),
        };
        let text = toml::to_string(&file).with_context(context)?;
        private_file::write(path, &text, Existing::Replace).with_context(context)
    }

    pub fn default_url(&self) -> Option<&Url> {
        self.default.as_ref()
    }

    pub fn key_of(&self, url: &Url) -> Option<&Secret<String>> {
        self.keys.get(url)
    }

    /// From now on commands use this server unless told otherwise.
    pub fn put(&mut self, url: &Url, key: Secret<String>) {
        self.keys.insert(url.clone(), key);
        self.default = Some(url.clone());
    }

    /// Whether there was one. What remains alone becomes the default.
    pub fn remove(&mut self, url: &Url) -> bool {
        let was_there = self.keys.remove(url).is_some();
        if self.default.as_ref() == Some(url) {
            self.default = match self.keys.len() {
                1 => self.keys.keys().next().cloned(),
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

    #[test]
    fn logins_survive_in_a_file_for_its_owner_alone() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("config/streamspace/credentials.toml");
        assert!(Credentials::load(&path).expect("no file is no login").default_url().is_none());

        let mut credentials = Credentials::default();
        credentials.put(&url("https://one.example/"), "sk_one".into());
        credentials.put(&url("https://two.example/"), "sk_two".into());
        credentials.store(&path).expect("stored");
        let mode = path.metadata().expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let mut loaded = Credentials::load(&path).expect("readable");
        assert_eq!(loaded.default_url(), Some(&url("https://two.example/")));
        assert_eq!(loaded.key_of(&url("https://one.example/")), Some(&"sk_one".into()));
        assert!(loaded.remove(&url("https://two.example/")));
        assert_eq!(loaded.default_url(), Some(&url("https://one.example/")));
        assert!(!loaded.remove(&url("https://two.example/")));
        assert_eq!(std::fs::read_dir(path.parent().expect("has one")).expect("readable").count(), 1);
    }

    #[test]
    fn a_damaged_file_does_not_show_its_keys() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("credentials.toml");
        std::fs::write(&path, "[servers.\"https://x\"]\napi_key = \"sk_secret").expect("written");
        let error = Credentials::load(&path).expect_err("damaged");
        assert!(!format!("{error:?}").contains("sk_secret"), "{error:?}");
    }
}
