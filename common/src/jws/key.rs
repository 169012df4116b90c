//! Public keys, as JSON Web Keys (RFC 7517) tell them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

/// A key that verifies; its kind says which algorithms it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    Ed25519([u8; 32]),
    /// Modulus and exponent, big endian without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point, as is the next.
    P256([u8; 65]),
    P384([u8; 97]),
}

/// A key from a provider's set, with what the set says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwk {
    pub kid: Option<String>,
    pub key: PublicKey,
    /// The one algorithm that it is meant for, when the set narrows it.
    pub alg: Option<String>,
}

#[derive(Deserialize)]
struct Members {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

impl PublicKey {
    /// `None` for a key that does not verify signatures, or of a kind or size that is not accepted:
    /// a set may hold such beside the one that matters.
    pub fn from_jwk(jwk: &Value) -> Option<Jwk> {
        let members = Members::deserialize(jwk).ok()?;
        let signs = members.usage.as_deref().is_none_or(|usage| usage == "sig")
            && members.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let key = signs.then(|| members.key()).flatten()?;
        Some(Jwk { kid: members.kid, key, alg: members.alg })
    }
}

impl Members {
    fn key(&self) -> Option<PublicKey> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => Some(PublicKey::Ed25519(bytes(&self.x)?.try_into().ok()?)),
            ("EC", Some("P-256")) => Some(PublicKey::P256(self.point(32)?.try_into().ok()?)),
            ("EC", Some("P-384")) => Some(PublicKey::P384(self.point(48)?.try_into().ok()?)),
            ("RSA", _) => {
                let (n, e) = (number(&self.n)?, number(&self.e)?);
                RSA_BITS.contains(&bits(&n)).then_some(PublicKey::Rsa { n, e })
            }
            _ => None,
        }
    }

    /// Coordinates have the full width of the curve, whatever zeros they begin with.
    fn point(&self, width: usize) -> Option<Vec<u8>> {
        let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
        (x.len() == width && y.len() == width).then(|| [&[4], x.as_slice(), &y].concat())
    }
}

fn bytes(member: &Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(member.as_ref()?).ok()
}

/// Some providers write a leading zero, which the standard forbids and ring refuses.
fn number(member: &Option<String>) -> Option<Vec<u8>> {
    let bytes = bytes(member)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Some(bytes[zeros..].to_vec())
}

fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}
