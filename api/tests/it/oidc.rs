//! People sign in through a certified identity provider, by real redirects.

use reqwest::Method;
use serde_json::{Value, json};
use streamspace_common::{Config, config::SecurityConfig};
use streamspace_testkit::{Browser, OidcProvider, Page};

use crate::{
    app::{App, PASSWORD, Person},
    sign_in::cheap,
};

pub const SECRET: &str = "of a client: s3cret/&+";
/// Where people want to go.
const THERE: &str = "/there?a=b";

pub fn config() -> Config {
    let allowed_cidrs = Some("127.0.0.0/8".parse().unwrap());
    Config { security: SecurityConfig { allowed_cidrs, ..SecurityConfig::default() }, ..cheap() }
}

/// The product beside a provider, which knows it as `acme`.
pub struct Stage {
    pub app: App,
    pub provider: OidcProvider,
}

impl Stage {
    pub async fn new(settings: Value) -> Self {
        let app = App::start_with(config()).await;
        let provider = OidcProvider::start(&registered(&app, settings)).await.unwrap();
        Self { app, provider }
    }

    /// As an administrator describes it.
    pub fn description(&self, changes: Value) -> Value {
        description(&self.app, self.provider.issuer(), changes)
    }

    /// Sets it up for the tenant of somebody.
    pub async fn set_up(&self, who: &Person, changes: Value) -> Value {
        let body = self.description(changes);
        self.app.post(who, "/api/v1/auth/oidc/providers", body).await.expect(201).json()
    }

    /// What somebody is to the provider from now on.
    pub async fn is_now(&self, id: &str, claims: Value) {
        self.provider.change(&json!({ "users": { id: claims } })).await.unwrap();
    }

    /// The address to which the provider sends a browser back that signs somebody in.
    pub async fn callback(&self, browser: &Browser) -> String {
        let page = browser.visit(&login(&self.app), |next| next.path().ends_with("/callback")).await.unwrap();
        page.location().unwrap_or_else(|| panic!("not sent back: {page:?}")).to_string()
    }
}

fn registered(app: &App, settings: Value) -> Value {
    let client = json!({ "client_id": "streamspace", "client_secret": SECRET, "redirect_uris": [back(app)] });
    let mut all = json!({ "clients": [client] });
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    all
}

fn back(app: &App) -> String {
    app.url("/api/v1/auth/oidc/acme/callback")
}

pub fn description(app: &App, issuer: &str, changes: Value) -> Value {
    let mut body = json!({
        "name": "acme", "displayName": "Acme", "providerUrl": issuer, "clientId": "streamspace",
        "clientSecret": SECRET, "redirectUri": back(app), "scopes": ["openid", "email", "profile", "groups"],
    });
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    body
}

fn login(app: &App) -> String {
    app.url(&format!("/api/v1/auth/oidc/acme/login?returnTo={}", THERE.replace('?', "%3F")))
}

pub fn ada() -> Value {
    json!({
        "email": "ada@example.org", "email_verified": true, "name": "Ada Lovelace", "preferred_username": "Ada.L",
        "groups": ["engineers", "staff"],
    })
}

/// Goes to the provider and back, to where the way ends.
pub async fn sign_in(app: &App, browser: &Browser) -> Page {
    browser.visit(&login(app), |next| next.path() == "/there").await.unwrap()
}

pub fn is_in(app: &App, browser: &Browser) -> bool {
    browser.cookie(&app.url("/"), "__Host-streamspace").is_some()
}

/// Who somebody is who was signed in.
#[track_caller]
pub fn expect_in(page: &Page) {
    let location = page.location().unwrap_or_else(|| panic!("not let in: {page:?}"));
    assert_eq!((page.status, &location[url::Position::BeforePath..]), (303, THERE), "{page:?}");
}

#[track_caller]
pub fn expect_problem(page: &Page, status: u16, name: &str) -> Value {
    assert_eq!(page.status, status, "{page:?}");
    let problem: Value = serde_json::from_str(&page.body).unwrap();
    assert_eq!(problem["type"], format!("/problems/{name}"), "{problem}");
    problem
}

pub async fn profile(app: &App, browser: &Browser) -> Value {
    let page = browser.get(&app.url("/api/v1/auth/profile")).await.unwrap();
    assert_eq!(page.status, 200, "{page:?}");
    serde_json::from_str(&page.body).unwrap()
}

/// Signs a browser in with a password, as our own page does.
pub async fn show_password(app: &App, browser: &Browser, who: &Person) {
    let origin = app.url("");
    let headers = [("origin", origin.as_str()), ("content-type", "application/json")];
    let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug }).to_string();
    let page = browser.send("POST", &app.url("/api/v1/auth/login"), &headers, &body).await.unwrap();
    assert_eq!(page.status, 200, "{page:?}");
}

/// Links from our own page, or another's.
pub async fn link(app: &App, browser: &Browser, from: &str) -> Page {
    let page =
        browser.send("GET", &format!("{}&link=true", login(app)), &[("sec-fetch-site", from)], "").await;
    browser.follow(page.unwrap(), |next| next.path() == "/there").await.unwrap()
}

pub async fn verify_email(app: &App, who: &Person) {
    app.execute(&format!("update users set email_verified_at = now() where id = '{}'", who.id)).await;
}

/// Everything that a sign-in that is refused must leave as it was.
pub async fn made(app: &App) -> [i64; 3] {
    [
        app.count("select count(*) from users").await,
        app.count("select count(*) from oidc_identities").await,
        app.count("select count(*) from sign_ins where method = 'oidc'").await,
    ]
}

pub async fn audited(app: &App, action: &str) -> Vec<Value> {
    let path = format!("/api/v1/audit?action={action}&limit=200");
    app.get(&app.ours.owner, &path).await.expect(200).json()["items"].as_array().unwrap().clone()
}

async fn role_in_team(app: &App, team: &str, user: &Value) -> Value {
    let members = app.get(&app.ours.owner, &format!("/api/v1/teams/{team}/members")).await.expect(200).json();
    let found = members["items"].as_array().unwrap().iter().find(|member| member["userId"] == *user);
    found.map_or(Value::Null, |member| member["role"].clone())
}

#[tokio::test]
async fn whoever_comes_first_gets_an_account_with_what_their_groups_give() {
    let stage = Stage::new(json!({ "users": { "ada": ada() } })).await;
    let Stage { app, provider } = &stage;
    let owner = &app.ours.owner;
    let team = async |name: &str| {
        let made = app.post(owner, "/api/v1/teams", json!({ "name": name })).await.expect(201).json();
        made["id"].as_str().unwrap().to_owned()
    };
    let (engines, people) = (team("Engines").await, team("People").await);
    let mapping = json!([
        { "group": "engineers", "role": "operator" },
        { "group": "staff", "role": "user" },
        { "group": "engineers", "teamId": engines, "teamRole": "admin" },
        { "group": "staff", "teamId": people, "teamRole": "member" },
    ]);
    stage.set_up(owner, json!({ "groupMapping": mapping })).await;

    let browser = Browser::of("ada");
    expect_in(&sign_in(app, &browser).await);
    let me = profile(app, &browser).await;
    assert_eq!(
        (&me["email"], &me["username"], &me["name"], &me["role"]),
        (&json!("ada@example.org"), &json!("ada.l"), &json!("Ada Lovelace"), &json!("operator"))
    );
    assert_eq!(me["emailVerified"], true);
    assert_eq!(role_in_team(app, &engines, &me["id"]).await, "admin");
    assert_eq!(role_in_team(app, &people, &me["id"]).await, "member");
    let sessions = browser.get(&app.url("/api/v1/auth/sessions")).await.unwrap();
    let sessions: Value = serde_json::from_str(&sessions.body).unwrap();
    assert_eq!(
        (&sessions["items"][0]["method"], &sessions["items"][0]["kind"]),
        (&json!("oidc"), &json!("browser"))
    );
    for action in ["users.create", "users.link_identity", "sign_ins.create"] {
        let found = audited(app, action).await;
        assert!(
            found.iter().any(|record| record["resourceId"] == me["id"] || action == "sign_ins.create"),
            "{action}"
        );
    }

    // Another time with other groups. A team that somebody else put them into is not the groups'.
    let ops = team("Ops").await;
    app.post(owner, &format!("/api/v1/teams/{ops}/members"), json!({ "userId": me["id"], "role": "viewer" }))
        .await
        .expect(201);
    let changed = json!({ "email": "other@example.org", "groups": ["staff"], "preferred_username": "other" });
    stage.is_now("ada", changed).await;
    let again = Browser::of("ada");
    expect_in(&sign_in(app, &again).await);
    let now = profile(app, &again).await;
    assert_eq!(
        (&now["id"], &now["role"], &now["email"]),
        (&me["id"], &json!("user"), &json!("ada@example.org"))
    );
    assert_eq!(role_in_team(app, &engines, &me["id"]).await, Value::Null);
    assert_eq!(role_in_team(app, &people, &me["id"]).await, "member");
    assert_eq!(role_in_team(app, &ops, &me["id"]).await, "viewer");
    // What one may is less at once, wherever one is in.
    assert_eq!(profile(app, &browser).await["role"], "user");

    let fewest = json!({ "groups": [] });
    stage.is_now("ada", fewest).await;
    expect_in(&sign_in(app, &Browser::of("ada")).await);
    assert_eq!(profile(app, &again).await["role"], "viewer");
    assert_eq!(role_in_team(app, &people, &me["id"]).await, Value::Null);
    assert_eq!(provider.calls("/jwks").await.unwrap(), 1, "keys are known for a while");
}

#[tokio::test]
async fn rotated_keys_are_known_at_once() {
    let stage = Stage::new(json!({ "users": { "ada": ada() } })).await;
    stage.set_up(&stage.app.ours.owner, json!({})).await;
    expect_in(&sign_in(&stage.app, &Browser::of("ada")).await);
    stage.provider.change(&json!({ "key": 2 })).await.unwrap();
    expect_in(&sign_in(&stage.app, &Browser::of("ada")).await);
    assert_eq!(stage.provider.calls("/jwks").await.unwrap(), 2);
}

#[tokio::test]
async fn what_the_token_lacks_the_user_information_says() {
    let stage = Stage::new(json!({ "users": { "ada": ada() }, "claimsIn": "userinfo" })).await;
    let mapping = json!([{ "group": "engineers", "role": "operator" }]);
    stage.set_up(&stage.app.ours.owner, json!({ "groupMapping": mapping })).await;
    let browser = Browser::of("ada");
    expect_in(&sign_in(&stage.app, &browser).await);
    let me = profile(&stage.app, &browser).await;
    assert_eq!((&me["email"], &me["role"]), (&json!("ada@example.org"), &json!("operator")));
}

#[tokio::test]
async fn an_address_that_nobody_vouches_for_opens_no_account() {
    let victim = json!({ "email": "User@example.org", "email_verified": false, "name": "Not the user" });
    let stage = Stage::new(json!({ "users": { "mallory": victim } })).await;
    let app = &stage.app;
    stage.set_up(&app.ours.owner, json!({})).await;
    verify_email(app, &app.ours.user).await;
    let before = made(app).await;
    let browser = Browser::of("mallory");
    let problem = expect_problem(&sign_in(app, &browser).await, 409, "link-required");
    assert!(
        problem["detail"].as_str().unwrap().contains("/api/v1/auth/oidc/acme/login?link=true"),
        "{problem}"
    );
    assert_eq!(made(app).await, before);
    assert!(!is_in(app, &browser));
    // Nor one that only the provider vouches for, or that another claim holds.
    stage.is_now("mallory", json!({ "email": "viewer@example.org", "email_verified": true })).await;
    expect_problem(&sign_in(app, &browser).await, 409, "link-required");
    stage.is_now("mallory", json!({ "email": "user@example.org", "email_verified": false, "organisation": "user@example.org" })).await;
    let id = app.get(&app.ours.owner, "/api/v1/auth/oidc/providers").await.json()["items"][0]["id"].clone();
    let path = format!("/api/v1/auth/oidc/providers/{}", id.as_str().unwrap());
    let body = stage.description(json!({ "emailClaim": "organisation" }));
    crate::app::Answer::of(app.request(&app.ours.owner, Method::PUT, &path).json(&body)).await.expect(200);
    expect_problem(&sign_in(app, &browser).await, 409, "link-required");
    assert_eq!(made(app).await, before);
    assert_eq!(audited(app, "sign_ins.fail").await.len(), 3);
}

/// Somebody makes an account for an address that is not theirs, and waits for its owner to take it over.
#[tokio::test]
async fn an_account_whose_address_was_proven_by_mail_is_not_whose_provider_made_it() {
    let user = json!({ "email": "new@example.org", "email_verified": false });
    let stage = Stage::new(json!({ "users": { "mallory": user } })).await;
    let app = &stage.app;
    stage.set_up(&app.ours.owner, json!({})).await;
    let browser = Browser::of("mallory");
    expect_in(&sign_in(app, &browser).await);
    let me = profile(app, &browser).await;
    assert_eq!(me["emailVerified"], false);
    expect_in(&sign_in(app, &browser).await);

    let id = me["id"].as_str().unwrap().parse::<uuid::Uuid>().unwrap().into();
    let who = Person { id, email: "new@example.org".to_owned(), ..app.ours.user.clone() };
    verify_email(app, &who).await;
    let waiting = Browser::of("mallory");
    expect_problem(&sign_in(app, &waiting).await, 409, "link-required");
    assert!(!is_in(app, &waiting));
    // Whoever can sign in to it says that both are the same person's, or the provider does.
    app.set_password(&who).await;
    show_password(app, &waiting, &who).await;
    expect_in(&link(app, &waiting, "same-origin").await);
    expect_in(&sign_in(app, &Browser::of("mallory")).await);
    app.execute("update oidc_identities set proven = false, linked_through = null").await;
    expect_problem(&sign_in(app, &Browser::of("mallory")).await, 409, "link-required");
    stage.is_now("mallory", json!({ "email": "New@example.org", "email_verified": true })).await;
    expect_in(&sign_in(app, &Browser::of("mallory")).await);
    stage.is_now("mallory", json!({ "email": "other@example.org", "email_verified": false })).await;
    expect_in(&sign_in(app, &Browser::of("mallory")).await);
}

#[tokio::test]
async fn an_account_is_linked_when_both_sides_have_verified_its_address() {
    let user = json!({ "email": "USER@example.org", "email_verified": true });
    let stage = Stage::new(json!({ "users": { "somebody": user } })).await;
    let app = &stage.app;
    stage.set_up(&app.ours.owner, json!({})).await;
    verify_email(app, &app.ours.user).await;
    let browser = Browser::of("somebody");
    expect_in(&sign_in(app, &browser).await);
    let me = profile(app, &browser).await;
    assert_eq!((&me["id"], &me["role"]), (&json!(app.ours.user.id), &json!("user")), "and keeps what it is");
    let linked = audited(app, "users.link_identity").await;
    assert_eq!(linked[0]["changes"]["after"]["by"], "email", "{}", linked[0]);
}

/// A provider is an admin's: by it nobody becomes who is above an admin, or beside.
#[tokio::test]
async fn who_has_more_to_lose_links_it_themselves() {
    let users = json!({
        "owner": { "email": "owner@example.org", "email_verified": true },
        "operator": { "email": "operator@example.org", "email_verified": true },
    });
    let stage = Stage::new(json!({ "users": users })).await;
    let app = &stage.app;
    stage.set_up(&app.ours.owner, json!({})).await;
    for who in [&app.ours.owner, &app.ours.operator] {
        verify_email(app, who).await;
    }
    expect_problem(&sign_in(app, &Browser::of("owner")).await, 409, "link-required");
    let second_factor = "totp_secret = '\\x00', totp_enabled_at = now()";
    for more in ["role = 'admin'", "platform_admin = true", second_factor] {
        app.execute(&format!("update users set {more} where id = '{}'", app.ours.operator.id)).await;
        expect_problem(&sign_in(app, &Browser::of("operator")).await, 409, "link-required");
        let less = "role = 'operator', platform_admin = false, totp_enabled_at = null";
        app.execute(&format!("update users set {less} where id = '{}'", app.ours.operator.id)).await;
    }
    expect_in(&sign_in(app, &Browser::of("operator")).await);

    // The owner shows the password once, in the browser that links.
    app.set_password(&app.ours.owner).await;
    let browser = Browser::of("owner");
    show_password(app, &browser, &app.ours.owner).await;
    expect_in(&link(app, &browser, "same-origin").await);
    let fresh = Browser::of("owner");
    expect_in(&sign_in(app, &fresh).await);
    let me = profile(app, &fresh).await;
    assert_eq!(
        (&me["id"], &me["role"]),
        (&json!(app.ours.owner.id), &json!("owner")),
        "groups unmake no owner"
    );
}

#[tokio::test]
async fn linking_takes_whoever_was_here_a_moment_ago() {
    let users = json!({
        "somebody": { "email": "user@example.org", "email_verified": false },
        "another": { "email": "another@example.org", "email_verified": true },
    });
    let stage = Stage::new(json!({ "users": users })).await;
    let app = &stage.app;
    stage.set_up(&app.ours.owner, json!({})).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let browser = Browser::of("somebody");
    expect_problem(&link(app, &browser, "same-origin").await, 401, "sign-in-required");
    show_password(app, &browser, who).await;
    // Another site sends the browser, perhaps signed in at the provider as somebody else.
    expect_problem(&link(app, &browser, "cross-site").await, 403, "forbidden");
    expect_problem(&link(app, &browser, "same-site").await, 403, "forbidden");
    app.execute("update sign_ins set created_at = created_at - interval '11 minutes'").await;
    expect_problem(&link(app, &browser, "same-origin").await, 401, "sign-in-required");
    let before = made(app).await;

    show_password(app, &browser, who).await;
    expect_in(&link(app, &browser, "none").await);
    assert_eq!(made(app).await, [before[0], before[1] + 1, before[2]]);
    assert_eq!(audited(app, "users.link_identity").await[0]["changes"]["after"]["by"], "sign_in");
    expect_in(&sign_in(app, &Browser::of("somebody")).await);

    // An identity is one account's.
    expect_in(&sign_in(app, &Browser::of("another")).await);
    let taken = Browser::of("another");
    show_password(app, &taken, who).await;
    expect_problem(&link(app, &taken, "same-origin").await, 409, "linked-to-another");
    // Who has signed out meanwhile links nothing.
    let third = Browser::of("somebody");
    show_password(app, &third, who).await;
    let page = third
        .send("GET", &format!("{}&link=true", login(app)), &[("sec-fetch-site", "none")], "")
        .await
        .unwrap();
    app.execute("delete from sign_ins").await;
    expect_problem(&third.follow(page, |_| false).await.unwrap(), 400, "sign-in-expired");
}

#[tokio::test]
async fn a_provider_signs_in_to_its_tenant_and_no_other() {
    let user = json!({ "email": "user@example.org", "email_verified": true });
    let stage = Stage::new(json!({ "users": { "somebody": user } })).await;
    let app = &stage.app;
    stage.set_up(&app.theirs.owner, json!({})).await;
    verify_email(app, &app.ours.user).await;
    verify_email(app, &app.theirs.user).await;
    let browser = Browser::of("somebody");
    expect_in(&sign_in(app, &browser).await);
    assert_eq!(profile(app, &browser).await["id"], json!(app.theirs.user.id));
    assert_eq!(
        app.count(&format!("select count(*) from oidc_identities where tenant_id = '{}'", app.ours.id)).await,
        0
    );
    // Whoever is signed in to ours links nothing of theirs.
    app.set_password(&app.ours.user).await;
    let other = Browser::of("somebody");
    show_password(app, &other, &app.ours.user).await;
    expect_problem(&link(app, &other, "same-origin").await, 403, "no-tenant");
    // Nor does anybody sign in to a tenant that is suspended.
    app.execute(&format!("update tenants set active = false where id = '{}'", app.theirs.id)).await;
    expect_problem(&sign_in(app, &browser).await, 404, "not-found");
}

#[tokio::test]
async fn who_is_disabled_stays_out() {
    let stage = Stage::new(json!({ "users": { "ada": ada() } })).await;
    let app = &stage.app;
    stage.set_up(&app.ours.owner, json!({})).await;
    expect_in(&sign_in(app, &Browser::of("ada")).await);
    app.execute("update users set active = false where email = 'ada@example.org'").await;
    let before = made(app).await;
    let browser = Browser::of("ada");
    expect_problem(&sign_in(app, &browser).await, 403, "account-disabled");
    assert!(!is_in(app, &browser));
    app.execute("delete from oidc_identities").await;
    expect_problem(&sign_in(app, &browser).await, 403, "account-disabled");
    assert_eq!(made(app).await, [before[0], 0, before[2]]);
}

#[tokio::test]
async fn an_answer_is_good_once_in_the_browser_that_asked() {
    let stage = Stage::new(json!({ "users": { "ada": ada() } })).await;
    let app = &stage.app;
    stage.set_up(&app.ours.owner, json!({})).await;
    let before = made(app).await;

    // Another browser, with a cookie of its own or none; after that for nobody.
    for other in [Browser::new(), Browser::of("ada")] {
        let browser = Browser::of("ada");
        let callback = stage.callback(&browser).await;
        let _ = other.get(&login(app)).await.unwrap();
        expect_problem(&other.get(&callback).await.unwrap(), 400, "sign-in-expired");
        expect_problem(&browser.get(&callback).await.unwrap(), 400, "sign-in-expired");
        assert!(!is_in(app, &other) && !is_in(app, &browser));
    }
    // Too late.
    let browser = Browser::of("ada");
    let callback = stage.callback(&browser).await;
    app.execute("update oidc_states set expires_at = queue.now()").await;
    expect_problem(&browser.get(&callback).await.unwrap(), 400, "sign-in-expired");
    // For another provider.
    let callback = stage.callback(&browser).await.replace("/acme/", "/other/");
    expect_problem(&browser.get(&callback).await.unwrap(), 400, "sign-in-expired");
    // From another issuer than the one asked, or from nobody.
    let callback = stage.callback(&browser).await;
    let other_issuer = callback.replace("iss=", "iss=x");
    expect_problem(&browser.get(&other_issuer).await.unwrap(), 403, "identity-provider-untrusted");
    let callback = stage.callback(&browser).await;
    let nobody = callback.replace("iss=", "xss=");
    expect_problem(&browser.get(&nobody).await.unwrap(), 403, "identity-provider-untrusted");
    // With another's code, which came for another nonce and verifier.
    let (mine, theirs) = (stage.callback(&browser).await, stage.callback(&Browser::of("ada")).await);
    let code = |url: &str| {
        let url = url::Url::parse(url).unwrap();
        url.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned()
    };
    let swapped = mine.replace(&code(&mine), &code(&theirs));
    expect_problem(&browser.get(&swapped).await.unwrap(), 502, "identity-provider-unavailable");
    assert_eq!(made(app).await, before);

    let callback = stage.callback(&browser).await;
    expect_in(&browser.get(&callback).await.unwrap());
    expect_problem(&browser.get(&callback).await.unwrap(), 400, "sign-in-expired");
    // In two tabs at once.
    let (first, second) = (stage.callback(&browser).await, stage.callback(&browser).await);
    expect_in(&browser.get(&first).await.unwrap());
    expect_in(&browser.get(&second).await.unwrap());
    assert_eq!(app.count("select count(*) from oidc_states").await, 3, "of those who never came back");
}

#[tokio::test]
async fn who_is_not_signed_in_there_is_not_signed_in_here() {
    let stage = Stage::new(json!({ "users": { "ada": ada(), "nameless": { "name": "No Address" } } })).await;
    let app = &stage.app;
    stage.set_up(&app.ours.owner, json!({})).await;
    let before = made(app).await;
    let problem =
        expect_problem(&sign_in(app, &Browser::of("nobody")).await, 403, "identity-provider-declined");
    assert!(problem["detail"].as_str().unwrap().ends_with("access_denied"), "{problem}");
    expect_problem(&sign_in(app, &Browser::of("nameless")).await, 403, "email-missing");
    assert_eq!(made(app).await, before);
}

#[tokio::test]
async fn nobody_is_sent_elsewhere() {
    let stage = Stage::new(json!({})).await;
    stage.set_up(&stage.app.ours.owner, json!({})).await;
    for elsewhere in ["https://evil.example", "//evil.example", "/%5Cevil.example", "/%09/evil.example", ""] {
        let url = stage.app.url(&format!("/api/v1/auth/oidc/acme/login?returnTo={elsewhere}"));
        expect_problem(&Browser::new().get(&url).await.unwrap(), 422, "invalid");
    }
    let page = Browser::new().get(&login(&stage.app)).await.unwrap();
    let cookie = page.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-streamspace-oidc=ob_"), "{cookie}");
    assert!(cookie.ends_with("; Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax"), "{cookie}");
    let asked = page.location().unwrap();
    for (name, value) in
        [("response_type", "code"), ("code_challenge_method", "S256"), ("client_id", "streamspace")]
    {
        assert!(asked.query_pairs().any(|pair| pair == (name.into(), value.into())), "{asked}");
    }
    for name in ["state", "nonce", "code_challenge"] {
        assert!(asked.query_pairs().any(|(found, value)| found == name && value.len() >= 43), "{asked}");
    }
}
