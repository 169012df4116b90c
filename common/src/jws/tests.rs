use ring::hmac;
use serde_json::{Value, json};

use super::*;

/// RFC 8037, appendix A.
const EDDSA: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PP\
    Ot7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

/// RFC 7515, appendix A.2.
const RS256: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLm\
    NvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuH\
    Im4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5\
    h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPq\
    vhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

/// RFC 7515, appendix A.3.
const ES256: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLm\
    NvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQx\
    fKTUJqPP3-Kg6NU1Q";

fn ed25519() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
}

fn rsa_2048() -> Value {
    json!({ "kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-\
        4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kp\
        aSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGh\
        yxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ" })
}

fn p256() -> Value {
    json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" })
}

fn key(jwk: &Value) -> PublicKey {
    PublicKey::from_jwk(jwk).expect("a key").key
}

fn with(jwk: &Value, member: &str, value: Value) -> Value {
    let mut changed = jwk.clone();
    changed[member] = value;
    changed
}

fn examples() -> [(&'static str, PublicKey); 3] {
    [(EDDSA, key(&ed25519())), (RS256, key(&rsa_2048())), (ES256, key(&p256()))]
}

fn verifies(token: &str, key: &PublicKey) -> bool {
    Jws::parse(token).is_ok_and(|jws| jws.verify(key).is_ok())
}

fn token(header: &Value, payload: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = [header.to_string().as_str(), payload].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

#[test]
fn the_examples_of_the_standards_verify() {
    for (token, key) in examples() {
        let jws = Jws::parse(token).expect("well formed");
        let payload = jws.verify(&key).expect("genuine");
        assert!(
            payload.starts_with(b"Example of") || payload.starts_with(b"{\"iss\":\"joe\""),
            "{payload:?}"
        );
    }
}

#[test]
fn no_other_key_verifies_them() {
    for (at, (token, _)) in examples().into_iter().enumerate() {
        for (other, (_, key)) in examples().into_iter().enumerate() {
            assert_eq!(verifies(token, &key), at == other, "{token} under {key:?}");
        }
    }
}

#[test]
fn any_changed_character_is_noticed() {
    for (token, key) in examples() {
        for at in 0..token.len() {
            for instead in ["A", "B", ".", "="].into_iter().filter(|instead| *instead != &token[at..=at]) {
                let changed = [&token[..at], instead, &token[at + 1..]].concat();
                assert!(!verifies(&changed, &key), "{changed}");
            }
        }
    }
}

#[test]
fn a_truncated_or_lengthened_token_does_not_verify() {
    for (token, key) in examples() {
        for length in 0..token.len() {
            assert!(!verifies(&token[..length], &key), "{length} of {token}");
        }
        for longer in [
            format!("{token}A"),
            format!("{token}="),
            format!("{token}."),
            format!(".{token}"),
            format!(" {token}"),
        ] {
            assert!(!verifies(&longer, &key), "{longer}");
        }
        let parts: Vec<_> = token.split('.').collect();
        for (header, payload, signature) in
            [("", parts[1], parts[2]), (parts[0], "", parts[2]), (parts[0], parts[1], "")]
        {
            assert!(!verifies(&format!("{header}.{payload}.{signature}"), &key));
        }
    }
}

#[test]
fn unsigned_tokens_never_verify() {
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let unsigned = token(&json!({ "alg": alg }), "{}", |_| Vec::new());
        let resigned = unsigned.clone() + ES256.rsplit('.').next().expect("a signature");
        for (_, key) in examples() {
            assert!(!verifies(&unsigned, &key), "{alg}");
            assert!(!verifies(&resigned, &key), "{alg}");
        }
    }
}

/// The classic: a library that takes the algorithm from the token uses the public key, which
/// everyone knows, as the shared secret.
#[test]
fn a_public_key_is_no_shared_secret() {
    let (PublicKey::Rsa { n, .. }, PublicKey::P256(point), PublicKey::Ed25519(x)) =
        (key(&rsa_2048()), key(&p256()), key(&ed25519()))
    else {
        panic!("other kinds of keys");
    };
    for secret in [n.as_slice(), &point, &x, rsa_2048().to_string().as_bytes(), b""] {
        for (alg, hash) in
            [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
        {
            let forged = token(&json!({ "alg": alg }), "{}", |signed| {
                hmac::sign(&hmac::Key::new(hash, secret), signed).as_ref().to_vec()
            });
            assert!(Jws::parse(&forged).is_ok(), "well formed, so refused for its algorithm");
            for (_, key) in examples() {
                assert!(!verifies(&forged, &key), "{alg}");
            }
        }
    }
}

/// A genuine signature under a header that names another algorithm, also of the key's own kind.
#[test]
fn the_header_must_name_what_the_key_signs_with() {
    let signer = Ed25519Signer::from_pkcs8(&Ed25519Signer::generate()).expect("a key");
    let genuine = signer.sign("JWT", "k", &json!({}));
    assert!(verifies(genuine.expose(), &signer.public_key()));
    for (example, key) in examples() {
        let (_, rest) = example.split_once('.').expect("three parts");
        for alg in [
            "EdDSA", "Ed25519", "RS256", "RS384", "RS512", "PS256", "PS512", "ES256", "ES384", "ES512",
            "ES256K",
        ] {
            let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
            let renamed = format!("{header}.{rest}");
            assert_eq!(verifies(&renamed, &key), renamed == example, "{alg}");
        }
    }
}

#[test]
fn a_key_that_the_token_brings_along_is_not_used() {
    let mine = Ed25519Signer::from_pkcs8(&Ed25519Signer::generate()).expect("a key");
    let theirs = Ed25519Signer::from_pkcs8(&Ed25519Signer::generate()).expect("a key");
    let forged = theirs.sign("JWT", "k", &json!({}));
    let (_, rest) = forged.expose().split_once('.').expect("three parts");
    let header = json!({ "alg": "EdDSA", "kid": "k", "jwk": theirs.jwk("k"), "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/" });
    let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
    assert!(!verifies(&forged, &mine.public_key()));
}

#[test]
fn headers_that_ask_for_more_are_refused() {
    for header in [
        json!({ "alg": "EdDSA", "crit": ["exp"] }),
        json!({ "alg": "EdDSA", "crit": ["b64"], "b64": false }),
        json!({ "alg": "EdDSA", "crit": [] }),
        json!({ "alg": "EdDSA", "crit": null }),
        json!({ "alg": ["EdDSA"] }),
        json!({ "alg": "EdDSA", "kid": 7 }),
        json!({}),
        json!("EdDSA"),
        json!([]),
    ] {
        assert!(Jws::parse(&token(&header, "{}", |_| vec![0; 64])).is_err(), "{header}");
    }
}

#[test]
fn what_is_too_long_is_not_looked_at() {
    let signer = Ed25519Signer::from_pkcs8(&Ed25519Signer::generate()).expect("a key");
    let long = |length: usize| signer.sign("JWT", "k", &json!({ "filler": "x".repeat(length) }));
    assert!(verifies(long(12_000).expose(), &signer.public_key()));
    assert!(long(12_200).expose().len() > MAX_LENGTH);
    assert!(Jws::parse(long(12_200).expose()).is_err());
}

#[test]
fn keys_for_other_ends_are_not_taken() {
    for usable in [ed25519(), rsa_2048(), p256()] {
        assert!(PublicKey::from_jwk(&with(&usable, "use", json!("sig"))).is_some());
        assert!(PublicKey::from_jwk(&with(&usable, "key_ops", json!(["verify"]))).is_some());
        for refused in [
            with(&usable, "use", json!("enc")),
            with(&usable, "key_ops", json!(["encrypt"])),
            with(&usable, "kty", json!("oct")),
            with(&usable, "kid", json!(7)),
        ] {
            assert_eq!(PublicKey::from_jwk(&refused), None, "{refused}");
        }
    }
    for refused in [
        json!({ "kty": "oct", "k": "AAAA" }),
        with(&ed25519(), "crv", json!("X25519")),
        with(&ed25519(), "x", json!("AAAA")),
        with(&p256(), "crv", json!("P-384")),
        with(&p256(), "crv", json!("secp256k1")),
        with(&p256(), "y", json!("AAAA")),
        with(&p256(), "y", json!(null)),
    ] {
        assert_eq!(PublicKey::from_jwk(&refused), None, "{refused}");
    }
}

#[test]
fn short_rsa_keys_are_refused() {
    let modulus = |first: u8, length: usize| {
        let bytes = [vec![first], vec![0xff; length - 1]].concat();
        with(&rsa_2048(), "n", json!(URL_SAFE_NO_PAD.encode(bytes)))
    };
    for (jwk, accepted) in [
        (modulus(0x80, 256), true),
        (modulus(0x7f, 256), false),
        (modulus(0xff, 128), false),
        (modulus(0x00, 256), false), // zeros do not lengthen a key
        (modulus(0xff, 1024), true),
        (modulus(0x01, 1025), false),
    ] {
        assert_eq!(PublicKey::from_jwk(&jwk).is_some(), accepted, "{jwk}");
    }
    let padded = modulus(0x00, 257);
    let PublicKey::Rsa { n, .. } = key(&padded) else { panic!("another kind of key") };
    assert_eq!(n.len(), 256, "a leading zero is forgiven");
}
