//! Against a certified provider.

use serde_json::{Value, json};
use streamspace_domain::oidc::{Age, IdentityProviders, Unanswered, Untrue};
use streamspace_http::{HttpProviders, Outbound};
use streamspace_testkit::OidcProvider;

use crate::support::{SECRET, code, providers, redeem, settings, sign_in};

fn with(changes: &Value) -> Value {
    let mut settings = settings();
    settings.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    settings
}

#[tokio::test]
async fn somebody_signs_in_with_every_algorithm() {
    let providers = providers();
    let provider = OidcProvider::start(&settings()).await.unwrap();
    for alg in ["RS256", "PS256", "ES256", "ES384", "EdDSA"] {
        // Asked anew each time: what the provider announces changes.
        let provider = if alg == "RS256" {
            &provider
        } else {
            &OidcProvider::start(&with(&json!({ "alg": alg }))).await.unwrap()
        };
        let claims = sign_in(&providers, provider, Age::Known).await.unwrap_or_else(|e| panic!("{alg}: {e}"));
        assert_eq!(claims.subject(), Some("ada"));
        assert_eq!(claims.text("email"), Some("ada@example.org"));
        assert_eq!(claims.list("groups"), Some(vec!["engineers"]));
        assert!(claims.is_true("email_verified") && claims.has("at_hash"), "{alg}: {claims:?}");
    }
}

#[tokio::test]
async fn what_the_token_lacks_is_in_the_user_information() {
    let provider = OidcProvider::start(&with(&json!({ "claimsIn": "userinfo" }))).await.unwrap();
    let claims = sign_in(&providers(), &provider, Age::Known).await.unwrap();
    assert_eq!(claims.list("groups"), Some(vec!["engineers"]));
}

#[tokio::test]
async fn a_client_proves_itself_as_the_provider_wants_it() {
    for method in ["client_secret_basic", "client_secret_post"] {
        let provider = OidcProvider::start(&with(&json!({ "authMethods": [method] }))).await.unwrap();
        let providers = providers();
        let document = providers.discover(provider.issuer()).await.unwrap();
        assert_eq!(document.secret_in_body, method == "client_secret_post");
        assert!(redeem(&providers, &document, SECRET).await.is_ok(), "{method}");
        let refused = redeem(&providers, &document, "another secret").await.unwrap_err();
        assert_eq!(refused, Unanswered::Refused("invalid_client".to_owned()), "{method}");
    }
}

#[tokio::test]
async fn a_code_is_good_for_one_who_has_its_verifier() {
    let provider = OidcProvider::start(&settings()).await.unwrap();
    let providers = providers();
    let document = providers.discover(provider.issuer()).await.unwrap();
    let (code, secret, verifier) = (code(&document).await, SECRET.into(), "x".repeat(43).into());
    let grant = streamspace_domain::oidc::Grant {
        client_id: crate::support::CLIENT,
        client_secret: &secret,
        redirect_uri: crate::support::BACK,
        code: &code,
        verifier: &verifier,
    };
    let refused = providers.redeem(&document, &grant).await.unwrap_err();
    assert_eq!(refused, Unanswered::Refused("invalid_grant".to_owned()));
}

#[tokio::test]
async fn rotated_keys_are_found_at_once_and_then_not_asked_for_again() {
    let provider = OidcProvider::start(&settings()).await.unwrap();
    let providers = providers();
    sign_in(&providers, &provider, Age::Known).await.unwrap();
    sign_in(&providers, &provider, Age::Known).await.unwrap();
    assert_eq!(provider.calls("/jwks").await.unwrap(), 1);
    assert_eq!(provider.calls("/.well-known/openid-configuration").await.unwrap(), 1);

    provider.change(&json!({ "key": 2 })).await.unwrap();
    let unknown = sign_in(&providers, &provider, Age::Known).await.unwrap_err();
    assert_eq!(unknown, Untrue::UnknownKey.into());
    sign_in(&providers, &provider, Age::Newest).await.unwrap();
    sign_in(&providers, &provider, Age::Known).await.unwrap();
    assert_eq!(provider.calls("/jwks").await.unwrap(), 2);

    let document = providers.discover(provider.issuer()).await.unwrap();
    for _ in 0..20 {
        providers.keys(&document, Age::Newest).await.unwrap();
    }
    assert_eq!(provider.calls("/jwks").await.unwrap(), 2, "within ten seconds of the last time");
}

#[tokio::test]
async fn a_private_address_is_reached_only_where_the_operator_allows_it() {
    let provider = OidcProvider::start(&settings()).await.unwrap();
    let strict = HttpProviders::new(Outbound::new(Default::default(), Outbound::PATIENCE));
    let port = provider.issuer().rsplit(':').next().unwrap();
    for url in [
        provider.issuer().to_owned(),
        format!("http://localhost:{port}"),
        format!("https://localhost:{port}"),
    ] {
        assert_eq!(strict.discover(&url).await.unwrap_err(), Unanswered::Private, "{url}");
    }
    assert_eq!(provider.calls("/.well-known/openid-configuration").await.unwrap(), 0);
    let plain = strict.discover("http://id.example").await.unwrap_err();
    assert_eq!(plain, Unanswered::Unreachable("the URL is not https".to_owned()));
}
