//! Against one that lies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use streamspace_domain::oidc::{Age, IdentityProviders, Unanswered, Untrue};
use streamspace_testkit::OidcProvider;

use crate::support::{SECRET, liar, patient, providers, sign_in};

async fn result_of(lies: &Value) -> Result<String, Unanswered> {
    let provider = OidcProvider::lying(&liar(lies)).await.unwrap();
    let claims = sign_in(&providers(), &provider, Age::Known).await?;
    Ok(claims.subject().unwrap().to_owned())
}

#[tokio::test]
async fn one_that_tells_the_truth_is_believed() {
    assert_eq!(result_of(&json!({})).await.as_deref(), Ok("mallory"));
}

#[tokio::test]
async fn lies_in_the_token_are_named() {
    let provider = OidcProvider::lying(&liar(&json!({}))).await.unwrap();
    let providers = providers();
    let truth = json!({ "claims": {}, "header": {}, "sign": "published", "userinfo": {} });
    for (lie, named) in [
        (json!({ "claims": { "iss": "https://accounts.example" } }), Untrue::Issuer),
        (json!({ "claims": { "aud": "another" } }), Untrue::Audience),
        (json!({ "claims": { "nonce": "another" } }), Untrue::Nonce),
        (json!({ "claims": { "nonce": null } }), Untrue::Nonce),
        (json!({ "claims": { "exp": 1_700_000_000 } }), Untrue::Expired),
        (json!({ "claims": { "at_hash": "77QmUPtjPfzWtF2AnpK9RQ" } }), Untrue::AccessToken),
        (json!({ "sign": "nothing" }), Untrue::Algorithm),
        (json!({ "sign": "secret" }), Untrue::Algorithm),
        (json!({ "sign": "unknown" }), Untrue::Signature),
        (json!({ "sign": "unknown", "header": { "kid": "new" } }), Untrue::UnknownKey),
        (json!({ "sign": "unknown", "header": { "kid": null } }), Untrue::UnknownKey),
        (json!({ "userinfo": { "sub": "somebody else" } }), Untrue::OtherSubject),
    ] {
        provider.change(&truth).await.unwrap();
        provider.change(&lie).await.unwrap();
        let result = sign_in(&providers, &provider, Age::Known).await;
        assert_eq!(result.unwrap_err(), named.into(), "{lie}");
    }
}

/// Also when it announces them.
#[tokio::test]
async fn unsigned_tokens_and_shared_secrets_are_never_taken() {
    for sign in ["nothing", "secret"] {
        let announced = json!({ "id_token_signing_alg_values_supported": ["none", "HS256", "ES256"] });
        let lie = json!({ "sign": sign, "document": announced });
        assert_eq!(result_of(&lie).await, Err(Untrue::Algorithm.into()), "{sign}");
    }
}

#[tokio::test]
async fn a_document_of_another_is_refused() {
    for (document, named) in [
        (json!({ "issuer": "https://accounts.example" }), Untrue::OtherIssuer),
        (json!({ "token_endpoint": "http://id.example/token" }), Untrue::Endpoint),
        (json!({ "jwks_uri": null }), Untrue::Document),
    ] {
        assert_eq!(result_of(&json!({ "document": document })).await, Err(named.into()), "{document}");
    }
}

#[tokio::test]
async fn an_endpoint_elsewhere_in_the_private_network_is_not_reached() {
    let lie = json!({ "document": { "token_endpoint": "https://10.0.0.1/token" } });
    assert_eq!(result_of(&lie).await, Err(Unanswered::Private));
    let lie = json!({ "document": { "jwks_uri": "https://169.254.169.254/latest" } });
    assert_eq!(result_of(&lie).await, Err(Unanswered::Private));
}

#[tokio::test]
async fn no_redirect_takes_the_secret_elsewhere() {
    let other = OidcProvider::lying(&liar(&json!({}))).await.unwrap();
    for path in ["/token", "/jwks", "/userinfo", "/.well-known/openid-configuration"] {
        let lie = json!({ "redirect": { path: format!("{}{path}", other.issuer()) } });
        assert_eq!(result_of(&lie).await, Err(Unanswered::Status(307)), "{path}");
        assert_eq!(other.calls(path).await.unwrap(), 0, "{path}");
    }
}

#[tokio::test]
async fn endless_answers_are_cut() {
    for path in ["/token", "/jwks", "/userinfo", "/.well-known/openid-configuration"] {
        assert_eq!(result_of(&json!({ "huge": [path] })).await, Err(Unanswered::TooLarge), "{path}");
    }
}

#[tokio::test]
async fn silence_ends() {
    let provider =
        OidcProvider::lying(&liar(&json!({ "slow": ["/.well-known/openid-configuration"] }))).await.unwrap();
    let providers = patient(Duration::from_millis(300));
    let start = Instant::now();
    // All who wait share the one failure instead of waiting one after the other.
    let all = (0..20).map(|_| providers.discover(provider.issuer()));
    for answer in futures::future::join_all(all).await {
        assert_eq!(answer.unwrap_err(), Unanswered::Unreachable("no answer within 300ms".to_owned()));
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_went_wrong_is_told_without_what_was_secret() {
    let refused = result_of(&json!({ "status": { "/token": 400 } })).await.unwrap_err();
    assert_eq!(refused, Unanswered::Refused("invalid_grant".to_owned()));
    assert_eq!(result_of(&json!({ "status": { "/jwks": 503 } })).await, Err(Unanswered::Status(503)));
    assert_eq!(result_of(&json!({ "token": { "id_token": null } })).await, Err(Unanswered::Unreadable));
    let nobody = providers().discover("http://127.0.0.1:9").await.unwrap_err();
    assert!(matches!(&nobody, Unanswered::Unreachable(reason) if reason.contains("refused")), "{nobody:?}");
    assert!(!format!("{refused:?} {nobody:?}").contains(SECRET));
}
