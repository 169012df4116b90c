//! Whether an ID token is true (OpenID Connect Core 1.0, 3.1.3.7).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use sha2::{Digest, Sha256, Sha384, Sha512};
use streamspace_common::jws::{Jwk, Jws};

use super::{Claims, Discovery, Untrue};

/// How far clocks may be apart, in seconds.
const LEEWAY: i64 = 60;

/// What a token of this very sign-in says.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub provider: &'a Discovery,
    pub client_id: &'a str,
    pub nonce: &'a str,
    /// The token that came beside it.
    pub access_token: &'a str,
    pub now: Timestamp,
}

/// What the provider says of the person. `UnknownKey` may be cured by newer keys.
pub fn verify(token: &str, keys: &[Jwk], expected: &Expected<'_>) -> Result<Claims, Untrue> {
    let jws = Jws::parse(token).map_err(|_| Untrue::Token)?;
    // `none` and shared secrets have no kind of key, so announcing them does not help.
    if !expected.provider.algorithms.iter().any(|announced| announced == jws.alg()) || is_unsigned(jws.alg())
    {
        return Err(Untrue::Algorithm);
    }
    let payload = signed(&jws, keys)?;
    let claims = Claims::read(payload).ok_or(Untrue::Token)?;

    if claims.text("iss") != Some(&expected.provider.issuer) {
        return Err(Untrue::Issuer);
    }
    check_audience(&claims, expected.client_id)?;
    check_time(&claims, expected.now.as_second())?;
    // Compared by their digests: how long it takes tells nothing of either.
    let nonce = claims.text("nonce").unwrap_or_default();
    if Sha256::digest(nonce) != Sha256::digest(expected.nonce) {
        return Err(Untrue::Nonce);
    }
    if claims.has("at_hash") && claims.text("at_hash") != Some(&half_hash(jws.alg(), expected.access_token)) {
        return Err(Untrue::AccessToken);
    }
    claims.subject().ok_or(Untrue::Subject)?;
    Ok(claims)
}

fn is_unsigned(alg: &str) -> bool {
    alg.eq_ignore_ascii_case("none") || alg.starts_with("HS")
}

/// The payload, when one of the keys that may have signed it did.
fn signed<'a>(jws: &'a Jws<'_>, keys: &[Jwk]) -> Result<&'a [u8], Untrue> {
    let mut verdict = Untrue::UnknownKey;
    for jwk in keys {
        let named = jws.kid().is_none() || jwk.kid.is_none() || jwk.kid.as_deref() == jws.kid();
        if !named || jwk.alg.as_deref().is_some_and(|alg| alg != jws.alg()) {
            continue;
        }
        match jws.verify(&jwk.key) {
            Ok(payload) => return Ok(payload),
            // Of a key that nobody named, a failure only says that it was another one.
            Err(_) if jws.kid().is_some() && jwk.kid.is_some() => verdict = Untrue::Signature,
            Err(_) => {}
        }
    }
    Err(verdict)
}

/// For us, and when for others too, then asked for by us.
fn check_audience(claims: &Claims, client_id: &str) -> Result<(), Untrue> {
    let audience = claims.list("aud").unwrap_or_default();
    let party = claims.text("azp");
    let asked_by_us = match party {
        Some(party) => party == client_id,
        None => !claims.has("azp") && audience.len() == 1,
    };
    if audience.contains(&client_id) && asked_by_us { Ok(()) } else { Err(Untrue::Audience) }
}

fn check_time(claims: &Claims, now: i64) -> Result<(), Untrue> {
    let expires = claims.seconds("exp").ok_or(Untrue::Expired)?;
    if now >= expires.saturating_add(LEEWAY) {
        return Err(Untrue::Expired);
    }
    let issued = claims.seconds("iat").ok_or(Untrue::Early)?;
    let from = if claims.has("nbf") { claims.seconds("nbf").ok_or(Untrue::Early)? } else { issued };
    if issued.max(from) > now.saturating_add(LEEWAY) { Err(Untrue::Early) } else { Ok(()) }
}

/// The left half of a hash whose size the algorithm gives; Ed25519 has SHA-512 within.
fn half_hash(alg: &str, access_token: &str) -> String {
    let digest = match alg {
        _ if alg.ends_with("256") => Sha256::digest(access_token).to_vec(),
        _ if alg.ends_with("384") => Sha384::digest(access_token).to_vec(),
        _ => Sha512::digest(access_token).to_vec(),
    };
    URL_SAFE_NO_PAD.encode(&digest[..digest.len() / 2])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use streamspace_common::jws::{Ed25519Signer, PublicKey};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    struct Provider {
        signer: Ed25519Signer,
        document: Discovery,
    }

    fn signer() -> Ed25519Signer {
        Ed25519Signer::from_pkcs8(&Ed25519Signer::generate()).expect("a key")
    }

    fn provider() -> Provider {
        let document = json!({
            "issuer": "https://id.example",
            "authorization_endpoint": "https://id.example/auth",
            "token_endpoint": "https://id.example/token",
            "jwks_uri": "https://id.example/jwks",
            "id_token_signing_alg_values_supported": ["RS256", "EdDSA", "HS256", "none"],
        });
        let document = Discovery::read("https://id.example", document.to_string().as_bytes()).expect("good");
        Provider { signer: signer(), document }
    }

    impl Provider {
        fn keys(&self) -> Vec<Jwk> {
            vec![PublicKey::from_jwk(&self.signer.jwk("k1")).expect("a key")]
        }

        fn verify(&self, token: &str, keys: &[Jwk]) -> Result<Claims, Untrue> {
            let expected = Expected {
                provider: &self.document,
                client_id: "streamspace",
                nonce: "the nonce",
                access_token: "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y",
                now: Timestamp::from_second(NOW).expect("a moment"),
            };
            verify(token, keys, &expected)
        }

        fn verify_claims(&self, claims: &Value) -> Result<Claims, Untrue> {
            self.verify(self.signer.sign("JWT", "k1", claims).expose(), &self.keys())
        }
    }

    fn truth() -> Value {
        json!({
            "iss": "https://id.example", "sub": "ada", "aud": "streamspace", "nonce": "the nonce",
            "iat": NOW - 5, "exp": NOW + 300,
        })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = truth();
        claims[name] = value;
        claims
    }

    fn without(name: &str) -> Value {
        let mut claims = truth();
        claims.as_object_mut().expect("an object").remove(name);
        claims
    }

    #[test]
    fn the_truth_is_believed() {
        assert_eq!(provider().verify_claims(&truth()).expect("true").subject(), Some("ada"));
    }

    #[test]
    fn every_lie_is_named() {
        let cases = [
            (with("iss", json!("https://id.example/")), Untrue::Issuer),
            (with("iss", json!(["https://id.example"])), Untrue::Issuer),
            (without("iss"), Untrue::Issuer),
            (with("aud", json!("another")), Untrue::Audience),
            (with("aud", json!([])), Untrue::Audience),
            (with("aud", json!(["streamspace", "another"])), Untrue::Audience),
            (with("azp", json!("another")), Untrue::Audience),
            (with("azp", json!(7)), Untrue::Audience),
            (without("aud"), Untrue::Audience),
            (with("exp", json!(NOW - 60)), Untrue::Expired),
            (with("exp", json!("1900000000")), Untrue::Expired),
            (without("exp"), Untrue::Expired),
            (with("iat", json!(NOW + 61)), Untrue::Early),
            (with("iat", json!(1e300)), Untrue::Early),
            (without("iat"), Untrue::Early),
            (with("nbf", json!(NOW + 61)), Untrue::Early),
            (with("nbf", json!("soon")), Untrue::Early),
            (with("nonce", json!("another")), Untrue::Nonce),
            (with("nonce", json!("the nonc")), Untrue::Nonce),
            (without("nonce"), Untrue::Nonce),
            (with("at_hash", json!("77QmUPtjPfzWtF2AnpK9RQ")), Untrue::AccessToken),
            (with("at_hash", json!(7)), Untrue::AccessToken),
            (with("sub", json!("")), Untrue::Subject),
            (without("sub"), Untrue::Subject),
        ];
        let provider = provider();
        for (claims, lie) in cases {
            assert_eq!(provider.verify_claims(&claims), Err(lie), "{claims}");
        }
    }

    #[test]
    fn clocks_may_be_a_minute_apart() {
        let provider = provider();
        for claims in
            [with("exp", json!(NOW - 59)), with("iat", json!(NOW + 60)), with("nbf", json!(NOW + 60))]
        {
            assert!(provider.verify_claims(&claims).is_ok(), "{claims}");
        }
    }

    #[test]
    fn several_audiences_need_the_party_that_asked() {
        let mut claims = with("aud", json!(["another", "streamspace"]));
        claims["azp"] = json!("streamspace");
        assert!(provider().verify_claims(&claims).is_ok());
    }

    /// The examples of RFC 7515 and the standard are of RS256; that of SHA-512 was computed elsewhere.
    #[test]
    fn the_access_token_belongs_to_the_id_token() {
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(half_hash("RS256", token), "77QmUPtjPfzWtF2AnpK9RQ");
        let claims = with("at_hash", json!(half_hash("EdDSA", token)));
        assert!(provider().verify_claims(&claims).is_ok());
        assert_eq!(half_hash("EdDSA", token).len(), 43);
    }

    #[test]
    fn another_key_is_unknown_and_a_forged_signature_is_wrong() {
        let provider = provider();
        let theirs = signer();
        let unknown = theirs.sign("JWT", "k2", &truth());
        assert_eq!(provider.verify(unknown.expose(), &provider.keys()), Err(Untrue::UnknownKey));
        let forged = theirs.sign("JWT", "k1", &truth());
        assert_eq!(provider.verify(forged.expose(), &provider.keys()), Err(Untrue::Signature));
        assert_eq!(provider.verify(forged.expose(), &[]), Err(Untrue::UnknownKey));
    }

    #[test]
    fn a_set_of_keys_without_names_is_tried_through() {
        let provider = provider();
        let mut keys =
            vec![PublicKey::from_jwk(&signer().jwk("k0")).expect("a key"), provider.keys().remove(0)];
        keys.iter_mut().for_each(|jwk| jwk.kid = None);
        let token = provider.signer.sign("JWT", "k1", &truth());
        assert!(provider.verify(token.expose(), &keys).is_ok());
        assert_eq!(provider.verify(token.expose(), &keys[..1]), Err(Untrue::UnknownKey));
    }

    #[test]
    fn a_key_signs_with_the_algorithm_that_its_set_names() {
        let provider = provider();
        let mut keys = provider.keys();
        keys[0].alg = Some("ES256".to_owned());
        let token = provider.signer.sign("JWT", "k1", &truth());
        assert_eq!(provider.verify(token.expose(), &keys), Err(Untrue::UnknownKey));
    }

    #[test]
    fn only_announced_algorithms_count_and_some_never_do() {
        let mut provider = provider();
        let token = |alg: &str| {
            let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
            format!("{header}.{}.", URL_SAFE_NO_PAD.encode(truth().to_string()))
        };
        for alg in ["none", "None", "HS256", "HS512", "ES256"] {
            assert_eq!(provider.verify(&token(alg), &provider.keys()), Err(Untrue::Algorithm), "{alg}");
        }
        assert_eq!(provider.verify(&token("RS256"), &provider.keys()), Err(Untrue::UnknownKey));
        provider.document.algorithms = vec!["RS256".to_owned()];
        assert_eq!(provider.verify_claims(&truth()), Err(Untrue::Algorithm));
        assert_eq!(provider.verify("a.b", &provider.keys()), Err(Untrue::Token));
    }
}
