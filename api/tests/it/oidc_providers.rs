//! Identity providers are set up by administrators, or stand in the configuration.

use reqwest::Method;
use serde_json::{Value, json};
use streamspace_common::{
    Config, Role,
    config::{AuthConfig, ServerConfig, oidc::OidcProviders},
};
use streamspace_testkit::{Browser, OidcProvider};

use crate::{
    app::{Answer, App, Person, any_id, key_of},
    oidc::{SECRET, Stage, ada, audited, config, description, expect_in, expect_problem, made, sign_in},
    secrets::{LOG, assert_unseen},
};

const PROVIDERS: &str = "/api/v1/auth/oidc/providers";

async fn put(app: &App, who: &Person, id: &str, body: &Value) -> Answer {
    Answer::of(app.request(who, Method::PUT, &format!("{PROVIDERS}/{id}")).json(body)).await
}

async fn delete(app: &App, who: &Person, id: &str) -> Answer {
    Answer::of(app.request(who, Method::DELETE, &format!("{PROVIDERS}/{id}"))).await
}

async fn listed(app: &App, query: &str) -> Value {
    Answer::of(app.anonymous(Method::GET, &format!("{PROVIDERS}{query}"))).await.expect(200).json()["items"]
        .clone()
}

/// The operator, as an admin from now on.
async fn admin(app: &App) -> Person {
    let operator = &app.ours.operator;
    app.execute(&format!("update users set role = 'admin' where id = '{}'", operator.id)).await;
    Person {
        role: Role::Admin,
        key: key_of(&app.queue, operator.tenant, operator.id, &["*"]).await,
        ..operator.clone()
    }
}

#[tokio::test]
async fn administrators_see_all_but_the_secret_and_others_the_names() {
    let app = App::start_with(config()).await;
    let owner = &app.ours.owner;
    let body = description(&app, "https://id.acme.example", json!({}));
    let made = app.post(owner, PROVIDERS, body).await.expect(201);
    let location = made.header("location").to_owned();
    let made = made.json();
    assert_eq!(location, format!("{PROVIDERS}/{}", made["id"].as_str().unwrap()));
    assert_eq!(
        (&made["defaultRole"], &made["emailClaim"], &made["enabled"]),
        (&json!("viewer"), &json!("email"), &json!(true))
    );
    assert!(made.get("clientSecret").is_none(), "{made}");

    assert_eq!(app.get(owner, PROVIDERS).await.expect(200).json()["items"], json!([made]));
    let name = json!([{ "name": "acme", "displayName": "Acme" }]);
    assert_eq!(listed(&app, "?tenant=ours").await, name);
    assert_eq!(app.get(&app.ours.operator, PROVIDERS).await.expect(200).json()["items"], name);
    assert_eq!(app.get(&app.theirs.owner, &format!("{PROVIDERS}?tenant=ours")).await.json()["items"], name);
    for nothing in ["", "?tenant=theirs", "?tenant=no-such"] {
        assert_eq!(listed(&app, nothing).await, json!([]), "{nothing}");
    }
    assert_eq!(app.get(&app.theirs.owner, PROVIDERS).await.json()["items"], json!([]));
    let narrow =
        Person { key: key_of(&app.queue, owner.tenant, owner.id, &["jobs.read"]).await, ..owner.clone() };
    assert_eq!(app.get(&narrow, &format!("{PROVIDERS}?tenant=ours")).await.json()["items"], name);
    let wrong = app.anonymous(Method::GET, PROVIDERS).header("x-api-key", "sk_wrong");
    Answer::of(wrong).await.problem(401, "unauthenticated");
    // A cookie that is over is a stranger's: the page of signing in lists them.
    let stale = app.anonymous(Method::GET, &format!("{PROVIDERS}?tenant=ours"));
    let stale = stale.header("cookie", format!("__Host-streamspace=ss_{}", "A".repeat(43)));
    assert_eq!(Answer::of(stale).await.expect(200).json()["items"], name);

    let disabled = description(&app, "https://id.acme.example", json!({ "enabled": false }));
    put(&app, owner, made["id"].as_str().unwrap(), &disabled).await.expect(200);
    assert_eq!(listed(&app, "?tenant=ours").await, json!([]));
    expect_problem(&sign_in(&app, &Browser::new()).await, 404, "not-found");
}

#[tokio::test]
async fn a_secret_is_told_to_whom_it_was_given_for_and_to_nobody_else() {
    let log = LOG.clone();
    let stage = Stage::new(json!({ "users": { "ada": ada() } })).await;
    let app = &stage.app;
    let owner = &app.ours.owner;
    let id = stage.set_up(owner, json!({})).await["id"].as_str().unwrap().to_owned();
    let without = |changes: Value| {
        let mut body = stage.description(changes);
        body.as_object_mut().unwrap().remove("clientSecret");
        body
    };
    // Described anew without it, it stays.
    put(app, owner, &id, &without(json!({ "displayName": "Acme & Co" }))).await.expect(200);
    expect_in(&sign_in(app, &Browser::of("ada")).await);
    // To another provider it is not taken along.
    let elsewhere = without(json!({ "providerUrl": "https://evil.example" }));
    let problem = put(app, owner, &id, &elsewhere).await.problem(422, "invalid").json();
    assert_eq!(problem["errors"][0]["pointer"], "/clientSecret");
    let another = stage.description(json!({ "clientSecret": "a wrong one" }));
    put(app, owner, &id, &another).await.expect(200);
    let problem =
        expect_problem(&sign_in(app, &Browser::of("ada")).await, 502, "identity-provider-unavailable");
    assert!(problem["detail"].as_str().unwrap().ends_with("it refuses: invalid_client"), "{problem}");
    put(app, owner, &id, &stage.description(json!({}))).await.expect(200);
    expect_in(&sign_in(app, &Browser::of("ada")).await);
    delete(app, owner, &id).await.expect(204);
    expect_problem(&sign_in(app, &Browser::of("ada")).await, 404, "not-found");

    let changes = audited(app, "identity_providers.update").await;
    assert_eq!(changes.len(), 3);
    for action in ["create", "update", "delete"] {
        let records = audited(app, &format!("identity_providers.{action}")).await;
        assert!(!records.is_empty() && !format!("{records:?}").contains(SECRET), "{records:?}");
    }
    // Nor does anything of a sign-in lie in the database or the log.
    stage.set_up(owner, json!({})).await;
    let browser = Browser::of("ada");
    let callback = stage.callback(&browser).await;
    expect_in(&browser.get(&callback).await.unwrap());
    let callback = url::Url::parse(&callback).unwrap();
    let mut secrets = vec![SECRET.to_owned(), "a wrong one".to_owned()];
    for name in ["code", "state"] {
        secrets.push(callback.query_pairs().find(|(found, _)| found == name).unwrap().1.into_owned());
    }
    for name in ["__Host-streamspace", "__Host-streamspace-oidc"] {
        secrets.push(browser.cookie(callback.as_str(), name).unwrap());
    }
    assert_unseen(app, &log, &secrets).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_description_is_told() {
    let app = App::start_with(config()).await;
    let owner = &app.ours.owner;
    let refused = async |changes: Value| {
        let body = description(&app, "https://id.acme.example", changes);
        let problem = app.post(owner, PROVIDERS, body).await.problem(422, "invalid").json();
        problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["pointer"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        refused(json!({ "name": "No Name", "providerUrl": "http://id.example" })).await,
        ["/name", "/providerUrl", "/redirectUri"]
    );
    // Somebody else's sign-in would be sent there.
    let elsewhere = json!({ "redirectUri": "https://evil.example/api/v1/auth/oidc/acme/callback" });
    assert_eq!(refused(elsewhere).await, ["/redirectUri"]);
    assert_eq!(refused(json!({ "clientSecret": null })).await, ["/clientSecret"]);
    assert_eq!(refused(json!({ "clientSecret": "" })).await, ["/clientSecret"]);
    assert_eq!(refused(json!({ "tenant": "theirs" })).await, ["/tenant"]);
    assert_eq!(refused(json!({ "defaultRole": "owner" })).await, ["/defaultRole"]);
    assert_eq!(
        refused(json!({ "groupMapping": [{ "group": "a", "role": "owner" }] })).await,
        ["/groupMapping/0/role"]
    );
    assert_eq!(
        refused(json!({ "groupMapping": [{ "group": "a", "role": "user", "roles": 1 }] })).await,
        ["/groupMapping/0/roles"]
    );
    let theirs =
        app.post(&app.theirs.owner, "/api/v1/teams", json!({ "name": "theirs" })).await.expect(201).json();
    for team in [theirs["id"].clone(), json!(any_id())] {
        let mapping =
            json!([{ "group": "a", "role": "user" }, { "group": "a", "teamId": team, "teamRole": "member" }]);
        assert_eq!(refused(json!({ "groupMapping": mapping })).await, ["/groupMapping/1/teamId"]);
    }
    // A name is the installation's, so one that another tenant has is taken.
    let body = description(&app, "https://id.acme.example", json!({}));
    app.post(owner, PROVIDERS, body.clone()).await.expect(201);
    app.post(&app.theirs.owner, PROVIDERS, body).await.problem(409, "conflict");
}

/// By a provider that they set up, admins would make others what they may not make them themselves.
#[tokio::test]
async fn who_may_make_no_admins_sets_up_no_provider_that_does() {
    let app = App::start_with(config()).await;
    let admin = admin(&app).await;
    let makes_admins =
        [json!({ "defaultRole": "admin" }), json!({ "groupMapping": [{ "group": "a", "role": "admin" }] })];
    let described = |changes: &Value| description(&app, "https://id.acme.example", changes.clone());
    for changes in &makes_admins {
        app.post(&admin, PROVIDERS, described(changes)).await.problem(403, "forbidden");
    }
    let mut ids = Vec::new();
    for (n, changes) in makes_admins.iter().enumerate() {
        let mut body = described(changes);
        body["name"] = json!(format!("acme{n}"));
        body["redirectUri"] = Value::Null;
        let made = app.post(&app.ours.owner, PROVIDERS, body).await.expect(201).json();
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    // Nor has one that does say something else.
    for id in &ids {
        put(&app, &admin, id, &described(&json!({ "providerUrl": "https://evil.example" })))
            .await
            .problem(403, "forbidden");
    }
    // Nor is it theirs to take away.
    for id in &ids {
        delete(&app, &admin, id).await.problem(403, "forbidden");
    }
    delete(&app, &app.ours.owner, &ids[0]).await.expect(204);
    app.post(&admin, PROVIDERS, described(&json!({ "defaultRole": "operator" }))).await.expect(201);
    app.post(&app.ours.operator, PROVIDERS, described(&json!({}))).await.problem(409, "conflict");
    app.post(&app.ours.user, PROVIDERS, described(&json!({}))).await.problem(403, "forbidden");
}

fn configured(issuer: &str, changes: Value) -> Config {
    let mut provider = json!({
        "name": "acme", "provider_url": issuer, "client_id": "streamspace", "client_secret": SECRET,
    });
    provider.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let mut config = config();
    let oidc = OidcProviders(serde_json::from_value(json!([provider])).unwrap());
    config.auth = AuthConfig { oidc, ..config.auth };
    config.server =
        ServerConfig { public_url: Some("http://ours.localhost".parse().unwrap()), ..config.server };
    config
}

/// The provider sends the browser to our public URL, behind which the test's port is.
async fn sign_in_behind(app: &App, browser: &Browser) -> streamspace_testkit::Page {
    let login = app.url("/api/v1/auth/oidc/acme/login?returnTo=/there%3Fa=b");
    let page = browser.visit(&login, |next| next.host_str() == Some("ours.localhost")).await.unwrap();
    let back = page.location().unwrap_or_else(|| panic!("not sent back: {page:?}"));
    browser.get(&app.url(&back[url::Position::BeforePath..])).await.unwrap()
}

#[tokio::test]
async fn the_configurations_providers_are_changed_there() {
    let provider =
        OidcProvider::lying(&json!({ "clientId": "streamspace", "clientSecret": SECRET })).await.unwrap();
    let app =
        App::start_with(configured(provider.issuer(), json!({ "tenant": "ours", "default_role": "user" })))
            .await;
    let owner = &app.ours.owner;
    let items = app.get(owner, PROVIDERS).await.expect(200).json()["items"].clone();
    assert_eq!((&items[0]["name"], &items[0]["providerUrl"]), (&json!("acme"), &json!(provider.issuer())));
    assert_eq!(items[0]["redirectUri"], "http://ours.localhost/api/v1/auth/oidc/acme/callback");
    assert!(items[0].get("id").is_none() && !items.to_string().contains(SECRET), "{items}");
    assert_eq!(listed(&app, "?tenant=ours").await, json!([{ "name": "acme", "displayName": "acme" }]));
    assert_eq!(listed(&app, "?tenant=theirs").await, json!([]));
    let body = description(&app, "https://id.acme.example", json!({}));
    app.post(owner, PROVIDERS, body).await.problem(409, "conflict");
    let browser = Browser::new();
    expect_in(&sign_in_behind(&app, &browser).await);
    let users = "select count(*) from users u join tenants t on t.id = u.tenant_id
                 where t.slug = 'ours' and u.email = 'mallory@example.org' and u.role = 'user'";
    assert_eq!(app.count(users).await, 1);
    // Nobody in a tenant could have set it up: it goes on to speak for those whom people have raised.
    for more in ["role = 'admin'", "role = 'owner'", "platform_admin = true"] {
        app.execute(&format!("update users set {more} where email = 'mallory@example.org'")).await;
        expect_in(&sign_in_behind(&app, &Browser::new()).await);
    }
}

#[tokio::test]
async fn a_claim_tells_the_tenant_and_without_one_nobody_gets_in() {
    let provider =
        OidcProvider::lying(&json!({ "clientId": "streamspace", "clientSecret": SECRET })).await.unwrap();
    let tenants = json!({ "ours.example": "ours", "us.example": "ours", "theirs.example": "theirs", "gone.example": "gone" });
    let app =
        App::start_with(configured(provider.issuer(), json!({ "tenant_claim": "hd", "tenants": tenants })))
            .await;
    let name = json!([{ "name": "acme", "displayName": "acme" }]);
    for everywhere in ["", "?tenant=ours", "?tenant=theirs"] {
        assert_eq!(listed(&app, everywhere).await, name, "{everywhere}");
    }
    assert_eq!(listed(&app, "?tenant=operators").await, json!([]));
    let before = made(&app).await;
    for hd in [
        json!(null),
        json!("evil.example"),
        json!("gone.example"),
        json!(["ours.example", "theirs.example"]),
        json!(7),
    ] {
        provider.change(&json!({ "claims": { "hd": hd } })).await.unwrap();
        expect_problem(&sign_in_behind(&app, &Browser::new()).await, 403, "no-tenant");
    }
    assert_eq!(made(&app).await, before);
    for (hd, slug) in [(json!("theirs.example"), "theirs"), (json!(["us.example", "ours.example"]), "ours")] {
        provider.change(&json!({ "claims": { "hd": hd } })).await.unwrap();
        expect_in(&sign_in_behind(&app, &Browser::new()).await);
        let users = format!(
            "select count(*) from users u join tenants t on t.id = u.tenant_id
             where t.slug = '{slug}' and u.email = 'mallory@example.org'"
        );
        assert_eq!(app.count(&users).await, 1, "{slug}");
    }
}
