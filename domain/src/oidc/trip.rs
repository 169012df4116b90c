//! A browser's way to a provider and back.
//!
//! What binds the answer to the browser that asked is made of two secrets, and the database has neither:
//! the state, which goes through the provider, and a cookie, which stays in the browser. The nonce and
//! PKCE's verifier follow from both, so whoever has read the database, or has heard one of the two, can
//! neither take somebody else's answer nor have somebody else take theirs.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use streamspace_common::Secret;

use crate::opaque::{Form, Hash};

#[derive(Debug)]
pub(super) struct Trip {
    pub state: Secret<String>,
    pub cookie: Secret<String>,
}

impl Trip {
    /// A new one of a browser, which keeps the cookie it may have: people sign in in two tabs.
    pub fn begin(cookie: Option<&str>) -> Self {
        let known = cookie.filter(|cookie| Form::OIDC_BROWSER.hash(cookie).is_some());
        let cookie = known.map_or_else(|| Form::OIDC_BROWSER.make(), Secret::from);
        Self { state: Form::OIDC_STATE.make(), cookie }
    }

    /// One that seems to have come back: both have their form.
    pub fn back(state: &str, cookie: &str) -> Option<Self> {
        Form::OIDC_STATE.hash(state).and(Form::OIDC_BROWSER.hash(cookie))?;
        Some(Self { state: state.into(), cookie: cookie.into() })
    }

    pub fn state_hash(&self) -> Hash {
        Form::OIDC_STATE.hash_made(&self.state)
    }

    pub fn browser_hash(&self) -> Hash {
        Form::OIDC_BROWSER.hash_made(&self.cookie)
    }

    pub fn nonce(&self) -> String {
        self.derived("nonce")
    }

    /// PKCE's: 43 characters.
    pub fn verifier(&self) -> Secret<String> {
        Secret::new(self.derived("verifier"))
    }

    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier().expose()))
    }

    /// Both secrets have one length, so no two pairs are written alike.
    fn derived(&self, what: &str) -> String {
        let mut hash = Sha256::new();
        for part in ["oidc", what, self.cookie.expose(), self.state.expose()] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        URL_SAFE_NO_PAD.encode(hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_what_went() {
        let trip = Trip::begin(None);
        let back = Trip::back(trip.state.expose(), trip.cookie.expose()).expect("both have their form");
        assert_eq!((back.nonce(), back.verifier()), (trip.nonce(), trip.verifier()));
        assert_eq!(trip.verifier().expose().len(), 43);
        assert_ne!(trip.nonce(), *trip.verifier().expose());
    }

    #[test]
    fn each_of_the_two_secrets_is_needed() {
        let trip = Trip::begin(None);
        let other = Trip::begin(None);
        let mixed = Trip::back(trip.state.expose(), other.cookie.expose()).expect("both have their form");
        assert_ne!(mixed.nonce(), trip.nonce());
        assert_ne!(mixed.verifier(), trip.verifier());
        assert!(Trip::back(trip.cookie.expose(), trip.state.expose()).is_none(), "each in its place");
    }

    #[test]
    fn a_browser_keeps_its_cookie_and_no_other() {
        let first = Trip::begin(None);
        let second = Trip::begin(Some(first.cookie.expose()));
        assert_eq!(second.cookie, first.cookie);
        assert_ne!(second.state, first.state);
        assert_ne!(Trip::begin(Some("ob_short")).cookie.expose(), "ob_short");
    }
}
