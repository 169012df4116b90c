//! The form of a key.

use streamspace_common::Secret;

use crate::opaque::{Form, Hash};

const PREFIX: usize = 8;

pub(super) fn make() -> Secret<String> {
    Form::API_KEY.make()
}

/// By which people tell their keys apart.
pub(super) fn prefix(secret: &str) -> &str {
    secret.get(..PREFIX).unwrap_or(secret)
}

pub(super) fn hash(secret: &Secret<String>) -> Hash {
    Form::API_KEY.hash_made(secret)
}
