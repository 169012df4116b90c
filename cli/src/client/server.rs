//! Which server, and with which key: flags, then variables, then the saved login.

use std::{fmt, path::PathBuf};

use anyhow::{Context, Result};
use streamspace_common::Secret;
use url::Url;

use super::{api::is_loopback, credentials::Credentials, exit::Usage};
use crate::first_start::KEY_FILE;

/// Where `streamspace up` listens unless told otherwise.
pub const LOCAL: &str = "http://127.0.0.1:8080";

/// Where requests go, and as whom.
#[derive(Clone, Debug)]
pub struct Server {
    pub url: Url,
    pub key: Secret<String>,
    pub key_origin: KeyOrigin,
}

/// Where a key was found, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    File(PathBuf),
    Environment,
    Login,
    /// Typed or piped in.
    Input,
}

impl fmt::Display for KeyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment => f.write_str("STREAMSPACE_API_KEY"),
            Self::Login => f.write_str("the saved login"),
            Self::Input => f.write_str("the input"),
        }
    }
}

/// What the command line and the environment say.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub url: Option<String>,
    pub api_key_file: Option<PathBuf>,
    pub url_variable: Option<String>,
    pub key_variable: Option<Secret<String>>,
}

impl Wanted {
    pub fn of_process(url: Option<String>, api_key_file: Option<PathBuf>) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.trim().is_empty());
        Self {
            url,
            api_key_file,
            url_variable: variable("STREAMSPACE_URL"),
            key_variable: variable("STREAMSPACE_API_KEY").map(Secret::new),
        }
    }

    /// The URL that was asked for, whether or not somebody is logged in there.
    pub fn url(&self) -> Result<Option<Url>> {
        self.url.as_deref().or(self.url_variable.as_deref()).map(parse_url).transpose()
    }

    /// A key from elsewhere than the saved login.
    pub fn key(&self) -> Result<Option<(Secret<String>, KeyOrigin)>> {
        if let Some(path) = &self.api_key_file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the key file {}", path.display()))?;
            let origin = KeyOrigin::File(path.clone());
            return Ok(Some((parse_key(&text, &origin)?, origin)));
        }
        let Some(key) = &self.key_variable else { return Ok(None) };
        Ok(Some((parse_key(key.expose(), &KeyOrigin::Environment)?, KeyOrigin::Environment)))
    }

    /// A saved key is used for the server that it was saved for and for no other: `--url` must not
    /// send it elsewhere.
    pub fn resolve(&self, saved: &Credentials) -> Result<Server> {
        let Some(url) = self.url()?.or_else(|| saved.default_url().cloned()) else {
            return Err(nothing_configured());
        };
        let (key, key_origin) = match self.key()? {
            Some(found) => found,
            None => {
                let key = saved.key_of(&url).ok_or_else(|| no_key(&url))?;
                (key.clone(), KeyOrigin::Login)
            }
        };
        Ok(Server { url, key, key_origin })
    }
}

fn no_key(url: &Url) -> anyhow::Error {
    let mut hint = format!(
        "log in once with `streamspace login --url {url}`, or set STREAMSPACE_API_KEY or --api-key-file"
    );
    if let Some(file) = local_key_file().filter(|_| is_loopback(url)) {
        hint.push_str(&format!("\nthe administrator's key of this machine: {}", file.display()));
    }
    Usage::new(format!("there is no API key for {url}"), hint).into()
}

fn nothing_configured() -> anyhow::Error {
    let hint = match local_key_file() {
        Some(file) => format!(
            "`streamspace up` was started on this machine; to use it:\n\
             streamspace login --url {LOCAL} --api-key-file {}",
            file.display()
        ),
        None => "log in once with `streamspace login --url https://…`, or set STREAMSPACE_URL and \
                 STREAMSPACE_API_KEY; `streamspace up` starts a server on this machine"
            .to_owned(),
    };
    Usage::new("no server is configured", hint).into()
}

/// What `streamspace up` wrote in its default data directory.
pub fn local_key_file() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share/streamspace"));
    let data_dirs = [PathBuf::from("/var/lib/streamspace")].into_iter().chain(home);
    data_dirs.map(|dir| dir.join(KEY_FILE)).find(|file| std::fs::File::open(file).is_ok())
}

/// The address of a server: no query, no credentials, no slash at its end.
pub fn parse_url(text: &str) -> Result<Url> {
    let wrong = |why: &str| {
        anyhow::Error::from(Usage::new(
            format!("{text:?} is not the URL of a server: {why}"),
            "a URL looks like https://streamspace.example.com or http://127.0.0.1:8080",
        ))
    };
    let mut url = Url::parse(text.trim()).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("it must start with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it must hold no user and no password"));
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').trim_end_matches("/api/v1").trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// A key as a header can carry it.
pub fn parse_key(text: &str, origin: &KeyOrigin) -> Result<Secret<String>> {
    let key = text.trim();
    if key.is_empty() {
        return Err(Usage::new(format!("{origin} holds no API key"), "an API key looks like sk_…").into());
    }
    if !key.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Usage::new(
            format!("{origin} holds something else than one API key"),
            "an API key looks like sk_… and stands on one line",
        )
        .into());
    }
    Ok(key.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Credentials {
        let mut saved = Credentials::default();
        saved.put(&parse_url("https://one.example").expect("valid"), "sk_one".into());
        saved.put(&parse_url("https://two.example/space").expect("valid"), "sk_two".into());
        saved
    }

    #[test]
    fn the_newest_login_is_the_default() {
        let server = Wanted::default().resolve(&saved()).expect("logged in");
        assert_eq!(server.url.as_str(), "https://two.example/space");
        assert_eq!(server.key.expose(), "sk_two");
        assert_eq!(server.key_origin, KeyOrigin::Login);
    }

    #[test]
    fn a_saved_key_goes_to_its_own_server_only() {
        let other = |url: &str| Wanted { url: Some(url.to_owned()), ..Wanted::default() };
        let server = other("https://one.example/").resolve(&saved()).expect("logged in there too");
        assert_eq!(server.key.expose(), "sk_one");
        for foreign in ["https://three.example", "http://one.example", "https://one.example:444"] {
            let error = other(foreign).resolve(&saved()).expect_err("nobody logged in there");
            assert!(error.is::<Usage>(), "{error}");
        }
    }

    #[test]
    fn flags_win_over_variables_and_those_over_the_login() {
        let mut wanted = Wanted {
            url_variable: Some("http://three.example/api/v1/".to_owned()),
            key_variable: Some(" sk_three\n".into()),
            ..Wanted::default()
        };
        let server = wanted.resolve(&saved()).expect("configured");
        assert_eq!(
            (server.url.as_str(), server.key.expose().as_str()),
            ("http://three.example/", "sk_three")
        );
        wanted.url = Some("http://four.example".to_owned());
        assert_eq!(wanted.resolve(&saved()).expect("configured").url.as_str(), "http://four.example/");
    }

    #[test]
    fn what_is_no_server_or_no_key_is_refused() {
        for url in ["example.com", "ftp://example.com", "https://user:secret@example.com"] {
            assert!(parse_url(url).is_err(), "{url}");
        }
        for key in ["", " \n", "sk_a\nsk_b", "sk_ü"] {
            assert!(parse_key(key, &KeyOrigin::Input).is_err(), "{key}");
        }
    }
}
