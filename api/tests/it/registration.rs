//! Strangers make tenants, where they may and as often as they may.

use reqwest::Method;
use serde_json::{Value, json};
use streamspace_common::{
    Actor, Config, PLATFORM,
    config::{Registration, oidc::OidcProviders},
};
use streamspace_domain::{
    identity::Tier,
    registration::{self, NewInvitation},
};
use streamspace_queue::Request;

use crate::{
    app::{Answer, App, PASSWORD},
    sign_in::{cheap, login},
    strings::STRINGS,
};

pub async fn with(registration: Registration) -> App {
    let mut config: Config = cheap();
    config.tenants.registration = registration;
    App::start_with(config).await
}

fn acme() -> Value {
    json!({
        "tenantName": "Acme & Co", "contactEmail": "office@acme.test", "email": "ann@acme.test", "name": "Ann",
        "password": PASSWORD, "passwordConfirmation": PASSWORD,
    })
}

/// The body with this in it.
fn and(mut body: Value, name: &str, value: impl Into<Value>) -> Value {
    body[name] = value.into();
    body
}

async fn register(app: &App, body: &Value) -> Answer {
    Answer::of(app.anonymous(Method::POST, "/api/v1/auth/register/tenant").json(body)).await
}

pub async fn invite(app: &App, email: Option<&str>, tier: Option<Tier>) -> String {
    let mut tx = app.queue.begin(Actor::system(PLATFORM), Request::default());
    let new = NewInvitation { email: email.map(str::to_owned), tier, lasts: registration::LASTS };
    let invitation = registration::invite(&mut tx, new).await.unwrap();
    tx.commit().await.unwrap();
    invitation.secret.expose().clone()
}

async fn tenants(app: &App) -> i64 {
    app.count("select count(*) from tenants").await
}

#[tokio::test]
async fn nobody_registers_unless_the_operator_says_so() {
    let app = App::start_with(cheap()).await;
    let before = tenants(&app).await;
    let invitation = invite(&app, None, None).await;
    register(&app, &acme()).await.problem(403, "registration-closed");
    register(&app, &and(acme(), "invitation", invitation)).await.problem(403, "registration-closed");
    assert_eq!(tenants(&app).await, before);
}

#[tokio::test]
async fn whoever_registers_is_the_owner_and_in() {
    let app = with(Registration::Open).await;
    let answer = register(&app, &acme()).await.expect(201);
    let made = answer.json();
    assert_eq!((&made["tokenType"], &made["expiresIn"]), (&json!("Bearer"), &json!(1800)));
    let (tenant, user, key) = (&made["tenant"], &made["user"], &made["apiKey"]);
    assert_eq!((&tenant["slug"], &tenant["tier"]), (&json!("acme-co"), &json!("free")));
    assert_eq!(tenant["contactEmail"], "office@acme.test");
    assert_eq!(
        (&user["role"], &user["username"], &user["emailVerified"]),
        (&json!("owner"), &json!("ann"), &json!(false))
    );
    assert_eq!(
        (&key["owner"], &key["role"], &key["isActive"]),
        (&json!("tenant"), &json!("admin"), &json!(true))
    );
    let asked = "select count(*) from jobs where kind = 'links.mail_verification'";
    assert_eq!(app.count(asked).await, 1, "the owner is asked whether the address is theirs");
    // All three ways in work, and so does the password.
    let token = made["accessToken"].as_str().unwrap();
    let profile = app.anonymous(Method::GET, "/api/v1/auth/profile").bearer_auth(token);
    assert_eq!(Answer::of(profile).await.expect(200).json()["id"], user["id"]);
    let keyed = app
        .anonymous(Method::GET, "/api/v1/auth/tenant/profile")
        .header("x-api-key", key["key"].as_str().unwrap());
    assert_eq!(Answer::of(keyed).await.expect(200).json()["id"], tenant["id"]);
    let refreshed = app
        .anonymous(Method::POST, "/api/v1/auth/refresh")
        .json(&json!({ "refreshToken": made["refreshToken"] }));
    Answer::of(refreshed).await.expect(200);
    login(&app, json!({ "email": "ann@acme.test", "password": PASSWORD })).await.expect(200);
    // No secret is stored in the clear.
    for secret in [token, made["refreshToken"].as_str().unwrap(), key["key"].as_str().unwrap(), PASSWORD] {
        for table in ["users", "api_keys", "sign_ins", "audit", "tenants", "idempotency_keys"] {
            let found =
                format!("select count(*) from {table} t where strpos(to_jsonb(t)::text, '{secret}') > 0");
            assert_eq!(app.count(&found).await, 0, "{table}");
        }
    }
    // Nor is it told twice: whoever sends it again finds the slug taken.
    let again = app
        .anonymous(Method::POST, "/api/v1/auth/register/tenant")
        .header("idempotency-key", "k")
        .json(&acme());
    Answer::of(again).await.problem(409, "conflict");
    let with_slug = and(acme(), "slug", "acme-two");
    assert_eq!(register(&app, &with_slug).await.expect(201).json()["tenant"]["slug"], "acme-two");
    // One address in two tenants.
    login(&app, json!({ "email": "ann@acme.test", "password": PASSWORD }))
        .await
        .problem(422, "tenant-required");
}

/// Else their people would be a stranger's, before the tenant is made and after it was deleted.
#[tokio::test]
async fn slugs_that_the_configurations_providers_sign_in_to_are_not_for_strangers() {
    let mut config: Config = cheap();
    config.tenants.registration = Registration::Open;
    let provider = |name: &str, whose: Value| {
        let mut provider = json!({
            "name": name, "provider_url": "https://id.example", "client_id": "c", "client_secret": "s",
        });
        provider.as_object_mut().unwrap().extend(whose.as_object().unwrap().clone());
        provider
    };
    let providers = json!([
        provider("one", json!({ "tenant": "acme-co" })),
        provider("many", json!({ "tenant_claim": "hd", "tenants": { "globex.example": "globex" } })),
    ]);
    config.auth.oidc = OidcProviders(serde_json::from_value(providers).unwrap());
    let app = App::start_with(config).await;
    let before = tenants(&app).await;
    let taken = register(&app, &acme()).await.problem(409, "conflict").json();
    assert_eq!(taken["detail"], "the slug \"acme-co\" is taken");
    register(&app, &and(acme(), "slug", "globex")).await.problem(409, "conflict");
    assert_eq!(tenants(&app).await, before);
    register(&app, &and(acme(), "slug", "initech")).await.expect(201);
}

#[tokio::test]
async fn a_browser_that_registers_gets_a_cookie_and_no_token() {
    let app = with(Registration::Open).await;
    let origin = format!("http://{}", app.address);
    let request = |origin: &str| {
        app.anonymous(Method::POST, "/api/v1/auth/register/tenant").header("origin", origin).json(&acme())
    };
    Answer::of(request("http://evil.example")).await.problem(403, "forbidden");
    let made = Answer::of(request(&origin)).await.expect(201);
    assert!(!made.text.contains("oken\""), "{}", made.text);
    let cookie = made.header("set-cookie").split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-streamspace=ss_"), "{cookie}");
    let profile = app.anonymous(Method::GET, "/api/v1/auth/profile").header("cookie", &cookie);
    assert_eq!(Answer::of(profile).await.expect(200).json()["email"], "ann@acme.test");
    assert!(made.json()["apiKey"]["key"].as_str().unwrap().starts_with("sk_"));
}

#[tokio::test]
async fn an_invitation_opens_once() {
    let app = with(Registration::Invite).await;
    register(&app, &acme()).await.problem(403, "registration-closed");
    let used_up = format!("ti_{}", "A".repeat(43));
    for bad in ["", "ti_", "sk_x", "ti_' or 1=1 --", &used_up] {
        register(&app, &and(acme(), "invitation", bad)).await.problem(403, "registration-closed");
    }
    let invitation = invite(&app, Some("Ann@acme.test"), Some(Tier::Standard)).await;
    let body = and(acme(), "invitation", invitation.as_str());
    let another = and(body.clone(), "email", "eve@evil.example");
    register(&app, &another).await.problem(403, "registration-closed");
    // What is refused for another reason leaves it as it was.
    register(&app, &and(body.clone(), "slug", "ours")).await.problem(409, "conflict");
    let short = and(and(body.clone(), "password", "short"), "passwordConfirmation", "short");
    register(&app, &short).await.problem(422, "invalid");
    let made = register(&app, &body).await.expect(201).json();
    assert_eq!(made["tenant"]["tier"], "standard");
    register(&app, &and(body, "slug", "another")).await.problem(403, "registration-closed");
    assert_eq!(app.count("select count(*) from audit where action = 'tenant_invitations.take'").await, 1);
    let stored = format!(
        "select count(*) from tenant_invitations t where strpos(to_jsonb(t)::text, '{invitation}') > 0"
    );
    assert_eq!(app.count(&stored).await, 0);

    let late = invite(&app, None, None).await;
    app.execute(
        "update tenant_invitations set expires_at = now() - interval '1 second' where used_at is null",
    )
    .await;
    let body = and(and(acme(), "slug", "late"), "invitation", late);
    register(&app, &body).await.problem(403, "registration-closed");
}

#[tokio::test]
async fn of_many_that_bring_one_invitation_at_once_one_comes_in() {
    let app = with(Registration::Invite).await;
    let before = tenants(&app).await;
    let invitation = invite(&app, None, None).await;
    let bodies: Vec<_> = (0..12)
        .map(|n| and(and(acme(), "slug", format!("acme-{n}")), "invitation", invitation.as_str()))
        .collect();
    let answers = futures::future::join_all(bodies.iter().map(|body| register(&app, body))).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(made, 1);
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        answer.problem(403, "registration-closed");
    }
    assert_eq!(tenants(&app).await, before + 1);
}

#[tokio::test]
async fn of_many_that_want_one_slug_at_once_one_gets_it() {
    let app = with(Registration::Open).await;
    let body = acme();
    let answers = futures::future::join_all((0..8).map(|_| register(&app, &body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        answer.problem(409, "conflict");
    }
    assert_eq!(app.count("select count(*) from users where email = 'ann@acme.test'").await, 1);
}

#[tokio::test]
async fn a_registration_holds_what_it_may_and_nothing_else() {
    let app = with(Registration::Open).await;
    let before = tenants(&app).await;
    for (name, value) in [
        ("role", json!("owner")),
        ("tier", json!("enterprise")),
        ("tenant", json!("ours")),
        ("tenantId", json!(app.ours.id)),
        ("platformAdmin", json!(true)),
        ("active", json!(true)),
        ("emailVerified", json!(true)),
        ("passwordHash", json!("$argon2id$x")),
        ("metadata", json!({})),
        ("id", json!(app.ours.id)),
    ] {
        register(&app, &and(acme(), name, value)).await.problem(422, "invalid");
    }
    for (name, value, pointer) in [
        ("tenantName", json!(""), "/tenantName"),
        ("tenantName", json!("日本"), "/slug"),
        ("tenantName", json!("a\u{0}"), "/tenantName"),
        ("slug", json!("Acme"), "/slug"),
        ("slug", json!("-"), "/slug"),
        ("slug", json!("a".repeat(64)), "/slug"),
        ("contactEmail", json!("office"), "/contactEmail"),
        ("contactEmail", Value::Null, "/contactEmail"),
        ("email", json!("ann"), "/email"),
        ("name", json!(" "), "/name"),
        ("passwordConfirmation", json!("another one"), "/passwordConfirmation"),
    ] {
        let told = register(&app, &and(acme(), name, value)).await.problem(422, "invalid").json();
        assert_eq!(told["errors"][0]["pointer"], pointer, "{told}");
    }
    for password in ["password1", "ann@acme.test", "short"] {
        let body = and(and(acme(), "password", password), "passwordConfirmation", password);
        let told = register(&app, &body).await.problem(422, "invalid").json();
        assert_eq!(told["errors"][0]["pointer"], "/password", "{told}");
    }
    register(&app, &and(acme(), "slug", "platform")).await.problem(409, "conflict");
    assert_eq!(tenants(&app).await, before);
}

#[tokio::test]
async fn no_string_in_a_registration_breaks_anything() {
    let app = with(Registration::Open).await;
    let long = "x".repeat(10_000);
    for text in STRINGS.into_iter().chain([long.as_str()]) {
        let names = ["tenantName", "slug", "contactEmail", "email", "name", "password", "invitation", text];
        for name in names {
            let answer = register(&app, &and(acme(), name, text)).await;
            assert!(answer.status < 500, "{name} {text:.50}: {}", answer.text);
            assert!(!answer.text.contains("syntax error"), "{}", answer.text);
        }
    }
    app.get(&app.ours.owner, "/api/v1/jobs").await.expect(200);
}

/// Whether a password is its owner's name is looked at just before it is hashed.
#[tokio::test]
async fn whoever_may_not_register_costs_no_hash() {
    let name = "ann@acme.test";
    let body = and(and(acme(), "password", name), "passwordConfirmation", name);
    let invited = and(body.clone(), "invitation", format!("ti_{}", "A".repeat(43)));
    for (door, name, body) in [
        (Registration::Closed, "registration-closed", &body),
        (Registration::Invite, "registration-closed", &body),
        (Registration::Invite, "registration-closed", &invited),
        (Registration::Open, "registration-closed", &invited),
        (Registration::Open, "invalid", &body),
    ] {
        let status = if name == "invalid" { 422 } else { 403 };
        register(&with(door).await, body).await.problem(status, name);
    }
}
