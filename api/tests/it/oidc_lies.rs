//! Providers that lie, or do not answer: each is named, and nothing comes of it.

use std::time::Duration;

use serde_json::{Value, json};
use streamspace_http::HttpProviders;
use streamspace_testkit::{Browser, OidcProvider};

use crate::{
    app::App,
    oidc::{SECRET, audited, config, description, expect_in, expect_problem, is_in, made, sign_in},
};

async fn lying(lies: Value) -> OidcProvider {
    let mut settings = json!({ "clientId": "streamspace", "clientSecret": SECRET });
    settings.as_object_mut().unwrap().extend(lies.as_object().unwrap().clone());
    OidcProvider::lying(&settings).await.unwrap()
}

async fn beside(provider: &OidcProvider) -> App {
    let app = App::start_with(config()).await;
    let body = description(&app, provider.issuer(), json!({}));
    app.post(&app.ours.owner, "/api/v1/auth/oidc/providers", body).await.expect(201);
    app
}

#[tokio::test]
async fn every_lie_is_refused_by_its_name() {
    let provider = lying(json!({})).await;
    let app = beside(&provider).await;
    let before = made(&app).await;
    let truth = json!({ "claims": {}, "header": {}, "sign": "published", "userinfo": {}, "token": {}, "document": {} });
    let lies = [
        (json!({ "claims": { "iss": "https://accounts.example" } }), "from another issuer"),
        (json!({ "claims": { "aud": "another" } }), "for another client"),
        (json!({ "claims": { "aud": ["streamspace", "another"] } }), "for another client"),
        (json!({ "claims": { "nonce": "another" } }), "belongs to another sign-in"),
        (json!({ "claims": { "nonce": null } }), "belongs to another sign-in"),
        (json!({ "claims": { "exp": 1_700_000_000 } }), "has expired"),
        (json!({ "claims": { "iat": 4_000_000_000_u64 } }), "from the future"),
        (json!({ "claims": { "sub": "" } }), "names nobody"),
        (json!({ "claims": { "at_hash": "77QmUPtjPfzWtF2AnpK9RQ" } }), "another access token"),
        (json!({ "sign": "nothing" }), "an algorithm that the provider does not announce, or none"),
        (json!({ "sign": "secret" }), "an algorithm that the provider does not announce, or none"),
        (json!({ "sign": "unknown" }), "the signature of the ID token is wrong"),
        (
            json!({ "sign": "unknown", "header": { "kid": "new" } }),
            "a key that the provider does not publish",
        ),
        (json!({ "claims": { "email": null }, "userinfo": { "sub": "another" } }), "about somebody else"),
        (
            json!({ "claims": { "email": null }, "userinfo": { "sub": null, "email": "owner@example.org" } }),
            "does not say about whom",
        ),
    ];
    let count = lies.len();
    for (lie, named) in lies {
        provider.change(&truth).await.unwrap();
        provider.change(&lie).await.unwrap();
        let browser = Browser::new();
        let problem = expect_problem(&sign_in(&app, &browser).await, 403, "identity-provider-untrusted");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{lie}: {problem}");
        assert!(!is_in(&app, &browser), "{lie}");
    }
    assert_eq!(made(&app).await, before);
    let failed = audited(&app, "sign_ins.fail").await;
    assert_eq!(failed.len(), count);
    assert_eq!(
        (&failed[0]["resourceType"], &failed[0]["resourceId"]),
        (&json!("identity_provider"), &json!("acme"))
    );

    provider.change(&truth).await.unwrap();
    expect_in(&sign_in(&app, &Browser::new()).await);
}

#[tokio::test]
async fn a_document_that_is_not_the_providers_own_begins_nothing() {
    let provider = lying(json!({ "document": { "issuer": "https://accounts.example" } })).await;
    let app = beside(&provider).await;
    let problem = expect_problem(&sign_in(&app, &Browser::new()).await, 403, "identity-provider-untrusted");
    assert!(
        problem["detail"].as_str().unwrap().contains("another issuer than the provider's URL"),
        "{problem}"
    );
    assert_eq!(app.count("select count(*) from oidc_states").await, 0);
}

#[tokio::test]
async fn a_provider_without_user_information_is_taken_by_its_token() {
    let provider = lying(json!({ "document": { "userinfo_endpoint": null } })).await;
    let app = beside(&provider).await;
    let mapping = json!([{ "group": "ops", "role": "operator" }]);
    let id = app.get(&app.ours.owner, "/api/v1/auth/oidc/providers").await.json()["items"][0]["id"].clone();
    let path = format!("/api/v1/auth/oidc/providers/{}", id.as_str().unwrap());
    let body = description(&app, provider.issuer(), json!({ "groupMapping": mapping }));
    let changed = app.request(&app.ours.owner, reqwest::Method::PUT, &path).json(&body);
    crate::app::Answer::of(changed).await.expect(200);
    // The token says nothing of groups, and nothing else is there to ask.
    expect_in(&sign_in(&app, &Browser::new()).await);
    assert_eq!(provider.calls("/userinfo").await.unwrap(), 0);
}

/// Each call ends in time, and so do all of them together.
#[tokio::test]
async fn a_browser_does_not_wait_for_many_slow_answers() {
    let slow = json!({ "/token": 400, "/jwks": 400, "/userinfo": 400 });
    let provider = lying(json!({ "claims": { "email": null }, "delay": slow })).await;
    let config = config();
    let providers = HttpProviders::of(&config).within(Duration::from_secs(1));
    let app = App::start_beside(config, providers).await;
    let body = description(&app, provider.issuer(), json!({}));
    app.post(&app.ours.owner, "/api/v1/auth/oidc/providers", body).await.expect(201);
    let before = made(&app).await;
    let problem = expect_problem(&sign_in(&app, &Browser::new()).await, 502, "identity-provider-unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("no answer within 1s"), "{problem}");
    assert_eq!(made(&app).await, before);
    let failed = audited(&app, "sign_ins.fail").await;
    assert_eq!(failed.len(), 1);
    assert!(failed[0]["changes"]["after"]["reason"].as_str().unwrap().contains("within 1s"), "{}", failed[0]);
}

#[tokio::test]
async fn what_does_not_answer_as_it_should_is_not_waited_for() {
    let other = lying(json!({})).await;
    for (lie, named) in [
        (json!({ "huge": ["/token"] }), "larger than 1 MiB"),
        (json!({ "redirect": { "/token": format!("{}/token", other.issuer()) } }), "the status 307"),
        (json!({ "status": { "/token": 400 } }), "it refuses: invalid_grant"),
        (json!({ "status": { "/jwks": 503 } }), "the status 503"),
        (json!({ "document": { "jwks_uri": "https://10.0.0.1/jwks" } }), "its address is private"),
    ] {
        let provider = lying(lie.clone()).await;
        let app = beside(&provider).await;
        let before = made(&app).await;
        let problem =
            expect_problem(&sign_in(&app, &Browser::new()).await, 502, "identity-provider-unavailable");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(named) && !detail.contains(SECRET), "{lie}: {problem}");
        assert_eq!(made(&app).await, before);
    }
    assert_eq!(other.calls("/token").await.unwrap(), 0, "the secret went nowhere else");
}

/// A group that is not told is not a group that is lost.
#[tokio::test]
async fn too_many_groups_take_nothing_away() {
    let provider = lying(json!({ "claims": { "groups": ["ops"] } })).await;
    let app = App::start_with(config()).await;
    let mapping = json!([{ "group": "ops", "role": "operator" }]);
    let body = description(&app, provider.issuer(), json!({ "groupMapping": mapping }));
    app.post(&app.ours.owner, "/api/v1/auth/oidc/providers", body).await.expect(201);
    expect_in(&sign_in(&app, &Browser::new()).await);
    provider.change(&json!({ "claims": { "_claim_names": { "groups": "src1" } } })).await.unwrap();
    expect_problem(&sign_in(&app, &Browser::new()).await, 403, "too-many-groups");
    let operators = "select count(*) from users where email = 'mallory@example.org' and role = 'operator'";
    assert_eq!(app.count(operators).await, 1);
}
