//! Which server, and as whom: flags, then variables, then the saved login.

use std::{fmt, path::PathBuf};

use anyhow::{Context, Result};
use streamspace_common::Secret;
use url::Url;

use super::{
    api::is_loopback,
    credentials::{Credentials, Login, Saved},
    exit::Usage,
    session::Session,
    store::{self, Store},
};
use crate::first_start::{KEY_FILE, PASSWORD_FILE};

/// Where `streamspace up` listens unless told otherwise.
pub const LOCAL: &str = "http://127.0.0.1:8080";

/// Where requests go, and as whom.
#[derive(Debug)]
pub struct Server {
    pub url: Url,
    pub pass: Pass,
}

#[derive(Debug)]
pub enum Pass {
    /// Before somebody has signed in.
    Nobody,
    Key {
        key: Secret<String>,
        origin: KeyOrigin,
    },
    SignIn(Session),
}

impl Server {
    /// What the command line, the environment and the saved logins say together. Without a home there
    /// is no store, and a script may bring everything in its environment.
    pub async fn find(wanted: &Wanted, store: Option<Store>) -> Result<Self> {
        let saved = store.as_ref().map(Store::read).transpose()?.unwrap_or_default();
        let (url, way) = wanted.resolve(&saved)?;
        let pass = match way {
            Way::Given { key, origin } => Pass::Key { key, origin },
            Way::Saved(saved) => match (store::fetch(&url, saved).await?, store) {
                (Login::Tokens(tokens), Some(store)) => {
                    Pass::SignIn(Session::new(store, url.clone(), tokens))
                }
                (Login::Tokens(_), None) => return Err(no_login(&url)),
                (Login::Key(key), _) => Pass::Key { key, origin: KeyOrigin::Login },
            },
        };
        Ok(Self { url, pass })
    }
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

    /// A login is used for the server that it was saved for and for no other: `--url` must not send it
    /// elsewhere.
    fn resolve<'a>(&self, saved: &'a Credentials) -> Result<(Url, Way<'a>)> {
        let Some(url) = self.url()?.or_else(|| saved.default_url().cloned()) else {
            return Err(nothing_configured());
        };
        let way = match self.key()? {
            Some((key, origin)) => Way::Given { key, origin },
            None => Way::Saved(saved.of(&url).ok_or_else(|| no_login(&url))?),
        };
        Ok((url, way))
    }
}

/// How somebody comes to a server.
#[derive(Debug, PartialEq)]
enum Way<'a> {
    Given { key: Secret<String>, origin: KeyOrigin },
    Saved(&'a Saved),
}

fn no_login(url: &Url) -> anyhow::Error {
    let mut hint = format!(
        "log in once with `streamspace login --url {url}`, or set STREAMSPACE_API_KEY or --api-key-file"
    );
    if let Some(file) = local_file(KEY_FILE).filter(|_| is_loopback(url)) {
        hint.push_str(&format!("\nthe administrator's key of this machine: {}", file.display()));
    }
    Usage::new(format!("nobody is logged in to {url}"), hint).into()
}

fn nothing_configured() -> anyhow::Error {
    let hint = match local_file(KEY_FILE) {
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

/// The administrator's key of this machine's server, if it is where `streamspace up` writes it by itself.
pub fn local_key() -> Option<PathBuf> {
    local_file(KEY_FILE)
}

/// The address and the password of its first start.
pub fn local_password() -> Option<PathBuf> {
    local_file(PASSWORD_FILE)
}

/// What may be read of what `streamspace up` wrote in its default data directory.
fn local_file(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share/streamspace"));
    let data_dirs = [PathBuf::from("/var/lib/streamspace")].into_iter().chain(home);
    data_dirs.map(|dir| dir.join(name)).find(|file| std::fs::File::open(file).is_ok())
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
        for (url, key) in [("https://one.example", "sk_one"), ("https://two.example/space", "sk_two")] {
            saved.put(&parse_url(url).expect("valid"), of(key));
        }
        saved
    }

    fn of(key: &str) -> Saved {
        Saved::Here(Login::Key(key.into()))
    }

    #[test]
    fn the_newest_login_is_the_default() {
        let saved = saved();
        let (url, way) = Wanted::default().resolve(&saved).expect("logged in");
        assert_eq!(url.as_str(), "https://two.example/space");
        assert_eq!(way, Way::Saved(&of("sk_two")));
    }

    #[test]
    fn a_saved_key_goes_to_its_own_server_only() {
        let other = |url: &str| Wanted { url: Some(url.to_owned()), ..Wanted::default() };
        let saved = saved();
        let (_, way) = other("https://one.example/").resolve(&saved).expect("logged in there too");
        assert_eq!(way, Way::Saved(&of("sk_one")));
        for foreign in ["https://three.example", "http://one.example", "https://one.example:444"] {
            let error = other(foreign).resolve(&saved).expect_err("nobody logged in there");
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
        let saved = saved();
        let (url, way) = wanted.resolve(&saved).expect("configured");
        let given = Way::Given { key: "sk_three".into(), origin: KeyOrigin::Environment };
        assert_eq!((url.as_str(), way), ("http://three.example/", given));
        wanted.url = Some("http://four.example".to_owned());
        assert_eq!(wanted.resolve(&saved).expect("configured").0.as_str(), "http://four.example/");
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
