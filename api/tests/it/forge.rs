//! Tokens as nobody should make them: with the installation's own key, which the test opens, or with any
//! other.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use sqlx::Row;
use streamspace_common::{Place, Sealed};
use uuid::Uuid;

use crate::app::App;

pub struct Forge {
    pub kid: Uuid,
    key: Ed25519KeyPair,
}

/// The parts of a token of ours.
pub fn parts(token: &str) -> (Value, Value) {
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    let mut next = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    (next(), next())
}

fn encoded(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

impl Forge {
    /// With the key that signs here. Somebody has signed in before.
    pub async fn ours(app: &App) -> Self {
        let row = sqlx::query("select id, private_key from signing_keys")
            .fetch_one(app.queue.db().pool())
            .await
            .unwrap();
        let (kid, sealed): (Uuid, Sealed) = (row.get(0), row.get(1));
        let place = Place { table: "signing_keys", column: "private_key", row: kid };
        let private = app.master().open(place, &sealed).unwrap();
        Self { kid, key: Ed25519KeyPair::from_pkcs8_maybe_unchecked(private.expose()).unwrap() }
    }

    /// With a key that nobody knows.
    pub fn stranger(kid: Uuid) -> Self {
        let private = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        Self { kid, key: Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap() }
    }

    pub fn header(&self) -> Value {
        json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": self.kid })
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = encoded(header, claims);
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(text.as_bytes()));
        format!("{text}.{signature}")
    }

    /// As if the public key were a shared secret.
    pub fn hmac(&self, claims: &Value) -> String {
        let text = encoded(&json!({ "alg": "HS256", "typ": "at+jwt", "kid": self.kid }), claims);
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.public_key().as_ref());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes())))
    }

    pub fn unsigned(&self, claims: &Value) -> String {
        format!("{}.", encoded(&json!({ "alg": "none", "typ": "at+jwt", "kid": self.kid }), claims))
    }
}
