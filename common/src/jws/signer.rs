//! The side that signs: Ed25519, the one algorithm of our own tokens.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Malformed, PublicKey};
use crate::secret::Secret;

pub struct Ed25519Signer(Ed25519KeyPair);

impl Ed25519Signer {
    /// A new private key, as PKCS#8.
    pub fn generate() -> Secret<Vec<u8>> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("the system gives randomness");
        Secret::new(document.as_ref().to_vec())
    }

    pub fn from_pkcs8(key: &Secret<Vec<u8>>) -> Result<Self, Malformed> {
        Ed25519KeyPair::from_pkcs8(key.expose()).map(Self).map_err(|_| Malformed)
    }

    pub fn public_key(&self) -> PublicKey {
        PublicKey::Ed25519(self.public())
    }

    /// The public key as it is published.
    pub fn jwk(&self, kid: &str) -> Value {
        Self::published(&self.public(), kid)
    }

    /// The same of one whose other half is not at hand.
    pub fn published(public: &[u8; 32], kid: &str) -> Value {
        let x = URL_SAFE_NO_PAD.encode(public);
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x })
    }

    /// A token of these claims. `typ` says what kind, so that one kind cannot stand for another.
    pub fn sign(&self, typ: &str, kid: &str, claims: &impl Serialize) -> Secret<String> {
        let claims = serde_json::to_vec(claims).expect("claims are plain data");
        self.sign_bytes(&json!({ "alg": "EdDSA", "typ": typ, "kid": kid }), &claims)
    }

    fn sign_bytes(&self, header: &Value, payload: &[u8]) -> Secret<String> {
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self.0.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Secret::new(token)
    }

    fn public(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().expect("Ed25519's keys have 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).expect("base64url")
    }

    #[test]
    fn signs_as_rfc_8037_does() {
        let private = bytes("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
        let public = bytes("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        let pair = Ed25519KeyPair::from_seed_and_public_key(&private, &public).expect("a pair");
        let token = Ed25519Signer(pair).sign_bytes(&json!({ "alg": "EdDSA" }), b"Example of Ed25519 signing");
        assert_eq!(
            token.expose(),
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-\
             09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
    }

    #[test]
    fn a_stored_key_signs_what_its_published_half_verifies() {
        let stored = Ed25519Signer::generate();
        let signer = Ed25519Signer::from_pkcs8(&stored).expect("a key");
        let published = PublicKey::from_jwk(&signer.jwk("k1")).expect("a key");
        assert_eq!(published.key, signer.public_key());
        assert_eq!((published.kid.as_deref(), published.alg.as_deref()), (Some("k1"), Some("EdDSA")));

        let token = signer.sign("at+jwt", "k1", &json!({ "sub": "someone" }));
        let parsed = super::super::Jws::parse(token.expose()).expect("a token");
        assert_eq!((parsed.typ(), parsed.kid(), parsed.alg()), (Some("at+jwt"), Some("k1"), "EdDSA"));
        assert_eq!(parsed.verify(&published.key), Ok(br#"{"sub":"someone"}"#.as_slice()));
    }

    #[test]
    fn a_stored_key_that_was_cut_is_refused() {
        let stored = Ed25519Signer::generate();
        for length in 0..stored.expose().len() {
            let cut = Secret::new(stored.expose()[..length].to_vec());
            assert!(Ed25519Signer::from_pkcs8(&cut).is_err(), "{length} bytes");
        }
    }
}
