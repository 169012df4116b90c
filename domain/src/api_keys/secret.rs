//! The form of a key, and what is stored of it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use streamspace_common::Secret;

const FORM: &str = "sk_";
const BYTES: usize = 32;
const PREFIX: usize = 8;

/// What the database has of a key: 32 random bytes need no slow hash.
pub(super) type Hash = [u8; 32];

pub(super) fn make() -> Secret<String> {
    let random: [u8; BYTES] = rand::random();
    Secret::new(format!("{FORM}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// By which people tell their keys apart.
pub(super) fn prefix(secret: &str) -> &str {
    secret.get(..PREFIX).unwrap_or(secret)
}

/// `None`: no key looks like this, so the database need not be asked.
pub(super) fn hash(secret: &str) -> Option<Hash> {
    let random = secret.strip_prefix(FORM)?;
    let length = URL_SAFE_NO_PAD.decode(random).ok()?.len();
    (length == BYTES).then(|| Sha256::digest(secret.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_form() {
        let secret = make();
        assert_eq!(secret.expose().len(), 3 + 43);
        assert!(hash(secret.expose()).is_some());
        assert_eq!(prefix(secret.expose()).len(), PREFIX);
        assert_ne!(make(), secret);
    }

    #[test]
    fn what_is_no_key_has_no_hash() {
        for text in ["", "sk_", "sk_abc", "Bearer x", "sk_\0", &"sk_A".repeat(1000)] {
            assert_eq!(hash(text), None, "{text:.20}");
        }
    }
}
