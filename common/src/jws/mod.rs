//! Signed tokens: compact JWS (RFC 7515) over ring, to make our own and to check those of others.
//!
//! The key decides. A token says which algorithm it was signed with, but a key only ever verifies
//! those of its own kind: `none` and shared secrets (`HS256` …) have no kind of key and so never
//! verify. What a header offers as a key (`jwk`, `jku`, `x5c`, `x5u`) is not even read.

mod key;
mod signer;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use thiserror::Error;

pub use self::{
    key::{Jwk, PublicKey},
    signer::Ed25519Signer,
};

/// No token that we make or accept comes near; what is longer is not looked at.
pub const MAX_LENGTH: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a signed token")]
pub struct Malformed;

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the signature does not fit the key")]
pub struct Invalid;

/// A token that was taken apart. Its payload is reached through `verify` only.
pub struct Jws<'a> {
    header: Header,
    payload: Vec<u8>,
    signature: Vec<u8>,
    signed: &'a [u8],
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl<'a> Jws<'a> {
    /// Strict: three parts, base64url without padding or spare bits, and no `crit`, as we know none
    /// of the extensions that it could demand.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        if text.len() > MAX_LENGTH {
            return Err(Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Malformed)?;
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Malformed)?;
        if header.crit {
            return Err(Malformed);
        }
        Ok(Self {
            header,
            payload: decode(payload)?, // holds no further dot: the alphabet has none
            signature: decode(signature)?,
            signed: signed.as_bytes(),
        })
    }

    /// What the token claims to be signed with.
    pub fn alg(&self) -> &str {
        &self.header.alg
    }

    /// Which key the token claims to be signed with: a hint for looking it up.
    pub fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// What the token claims to be. Signed like the payload, so true once `verify` says so.
    pub fn typ(&self) -> Option<&str> {
        self.header.typ.as_deref()
    }

    /// The payload, when the holder of the key signed it.
    pub fn verify(&self, key: &PublicKey) -> Result<&[u8], Invalid> {
        let verified = match (key, self.alg()) {
            (PublicKey::Ed25519(key), "EdDSA") => {
                UnparsedPublicKey::new(&ED25519, key).verify(self.signed, &self.signature)
            }
            (PublicKey::P256(key), "ES256") => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(self.signed, &self.signature)
            }
            (PublicKey::P384(key), "ES384") => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key).verify(self.signed, &self.signature)
            }
            (PublicKey::Rsa { n, e }, alg) => {
                RsaPublicKeyComponents { n, e }.verify(rsa(alg).ok_or(Invalid)?, self.signed, &self.signature)
            }
            _ => return Err(Invalid),
        };
        verified.map(|()| self.payload.as_slice()).map_err(|_| Invalid)
    }
}

fn rsa(alg: &str) -> Option<&'static RsaParameters> {
    match alg {
        "RS256" => Some(&RSA_PKCS1_2048_8192_SHA256),
        "RS384" => Some(&RSA_PKCS1_2048_8192_SHA384),
        "RS512" => Some(&RSA_PKCS1_2048_8192_SHA512),
        "PS256" => Some(&RSA_PSS_2048_8192_SHA256),
        "PS384" => Some(&RSA_PSS_2048_8192_SHA384),
        "PS512" => Some(&RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Malformed> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests;
