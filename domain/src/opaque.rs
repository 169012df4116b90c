//! Secrets that somebody carries and that mean nothing by themselves: keys, tickets, refresh tokens,
//! cookies, links. Each begins with the name of its form, so one is never taken for another, and of
//! each the database has only the hash: 32 random bytes need no slow one.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use streamspace_common::Secret;

pub(crate) type Hash = [u8; 32];

const BYTES: usize = 32;
/// Of them in base64.
const LENGTH: usize = 43;

/// What a kind of secret begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form(&'static str);

impl Form {
    pub const API_KEY: Self = Self("sk_");
    pub const TICKET: Self = Self("st_");
    pub const REFRESH: Self = Self("rt_");
    pub const COOKIE: Self = Self("ss_");
    pub const CHALLENGE: Self = Self("sc_");
    /// Of whoever is asked whether a program may act as them: yes.
    pub const CLI_CONSENT: Self = Self("cy_");
    pub const CLI_CODE: Self = Self("cc_");
    pub const OIDC_STATE: Self = Self("os_");
    pub const OIDC_BROWSER: Self = Self("ob_");
    pub const LINK: Self = Self("ml_");

    /// A new one.
    pub fn make(self) -> Secret<String> {
        let random: [u8; BYTES] = rand::random();
        Secret::new(format!("{}{}", self.0, URL_SAFE_NO_PAD.encode(random)))
    }

    /// `None`: none looks like this, so the database need not be asked.
    pub fn hash(self, secret: &str) -> Option<Hash> {
        let random = secret.strip_prefix(self.0).filter(|random| random.len() == LENGTH)?;
        // Only whole bytes, written in the one way there is.
        URL_SAFE_NO_PAD.decode(random).ok()?;
        Some(Sha256::digest(secret.as_bytes()).into())
    }

    /// Of one that was just made.
    pub fn hash_made(self, secret: &Secret<String>) -> Hash {
        self.hash(secret.expose()).expect("it was just made in this form")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_its_form() {
        let secret = Form::API_KEY.make();
        assert_eq!(secret.expose().len(), 3 + LENGTH);
        assert!(Form::API_KEY.hash(secret.expose()).is_some());
        assert_eq!(Form::REFRESH.hash(secret.expose()), None, "each in its place");
        assert_ne!(Form::API_KEY.make(), secret);
    }

    #[test]
    fn what_has_not_the_form_has_no_hash() {
        let other_bits = format!("sk_{}B", "A".repeat(42));
        for text in ["", "sk_", "sk_abc", "Bearer x", "sk_\0", &"sk_A".repeat(1000), &other_bits] {
            assert_eq!(Form::API_KEY.hash(text), None, "{text:.20}");
        }
    }
}
