//! Browsers: a cookie that no script reads stands for their sign-in, and what they ask for is believed to
//! be its person's wish only when one of our own pages asks.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use streamspace_common::{Config, Secret};
use streamspace_domain::sign_in::{Client, Kind};
use url::{Origin, Url};

use crate::problem::ApiError;

/// The prefix makes browsers refuse it from anybody but this host, and over anything but TLS (or to this
/// machine).
pub const SESSION: &str = "__Host-streamspace";
/// What accompanies a browser to an identity provider and back.
pub(crate) const OIDC: &str = "__Host-streamspace-oidc";

/// Where our own pages are.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// `None`: wherever the request says that it was sent to.
    configured: Option<Origin>,
}

impl Site {
    pub fn of(config: &Config) -> Self {
        Self { configured: config.server.public_url.as_ref().map(Url::origin) }
    }

    /// Whether one of our pages asks.
    ///
    /// Without a configured address that is whoever names the host that was asked as their own: the
    /// cookie is that host's, so another's page can't have both.
    pub fn asked(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = text(headers, header::ORIGIN).and_then(|origin| Url::parse(origin).ok()) else {
            return false;
        };
        match &self.configured {
            Some(ours) => origin.origin() == *ours,
            None => text(headers, header::HOST).is_some_and(|host| {
                let asked = Url::parse(&format!("{}://{host}", origin.scheme()));
                asked.is_ok_and(|asked| asked.origin() == origin.origin())
            }),
        }
    }

    /// How somebody's sign-in is to go on. A browser's own page gets a cookie; no token ever reaches its
    /// scripts.
    pub fn client(&self, headers: &HeaderMap) -> Result<Client, ApiError> {
        let device = text(headers, header::USER_AGENT).unwrap_or_default();
        if !is_browser(headers) {
            return Ok(Client::new(Kind::Tokens, device));
        }
        if !self.asked(headers) {
            return Err(ApiError::forbidden("a browser signs in from our own pages only"));
        }
        Ok(Client::new(Kind::Browser, device))
    }
}

/// What scripts in pages can neither leave out nor change.
fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

/// Whether a browser was sent to this address by one of our own pages, or by a program that is none: for
/// what a page elsewhere must not send it to. Any page can write an address; none can write this header.
pub(crate) fn is_own_page(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin")
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

/// Sets the session's cookie.
pub(crate) fn remember(secret: &Secret<String>, lifetime: Duration) -> HeaderValue {
    set(SESSION, secret.expose(), lifetime.as_secs())
}

/// Sets the cookie that accompanies it.
pub(crate) fn accompany(secret: &Secret<String>, lifetime: Duration) -> HeaderValue {
    set(OIDC, secret.expose(), lifetime.as_secs())
}

/// Takes it away.
pub(crate) fn forget() -> HeaderValue {
    set(SESSION, "", 0)
}

fn set(name: &str, value: &str, seconds: u64) -> HeaderValue {
    let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    let mut cookie = HeaderValue::from_str(&cookie).expect("ours are ASCII");
    cookie.set_sensitive(true);
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    }

    #[test]
    fn our_own_pages_are_told_from_others() {
        let local = Site { configured: None };
        let from = |origin: &str, host: &str| headers(&[("origin", origin), ("host", host)]);
        assert!(local.asked(&from("http://localhost:8080", "localhost:8080")));
        assert!(local.asked(&from("https://streams.example", "streams.example:443")));
        for (origin, host) in [
            ("http://evil.example", "localhost:8080"),
            ("http://localhost:8081", "localhost:8080"),
            ("null", "localhost:8080"),
            ("", "localhost:8080"),
            ("http://localhost:8080@evil.example", "localhost:8080"),
            ("http://localhost:8080", "localhost:8080@evil.example"),
        ] {
            assert!(!local.asked(&from(origin, host)), "{origin} {host}");
        }
        assert!(!local.asked(&headers(&[("host", "localhost:8080")])), "nobody says where it is from");

        let public =
            Site { configured: Some(Url::parse("https://streams.example/").expect("a URL").origin()) };
        assert!(public.asked(&from("https://streams.example", "10.0.0.7:8080")), "behind a proxy");
        assert!(!public.asked(&from("http://streams.example", "streams.example")));
        assert!(!public.asked(&from("https://evil.example", "evil.example")), "whatever the host");
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let sent = headers(&[("cookie", "a=b; __Host-streamspace=ss_x; __Host-streamspace2=no")]);
        assert_eq!(cookie(&sent, SESSION), Some("ss_x"));
        assert_eq!(cookie(&headers(&[("cookie", "x__Host-streamspace=y")]), SESSION), None);
        assert_eq!(cookie(&HeaderMap::new(), SESSION), None);
    }

    #[test]
    fn a_browser_gets_no_tokens() {
        let site = Site { configured: None };
        assert_eq!(site.client(&HeaderMap::new()).expect("a program").kind, Kind::Tokens);
        let ours = headers(&[("origin", "http://localhost:8080"), ("host", "localhost:8080")]);
        assert_eq!(site.client(&ours).expect("our page").kind, Kind::Browser);
        assert!(site.client(&headers(&[("sec-fetch-site", "cross-site")])).is_err());
    }
}
