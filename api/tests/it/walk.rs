//! Every operation of the document, with every credential that must not open it, and as every role: the
//! answer is the one that the table of permissions says, and never a mistake of ours.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use streamspace_api::operations::Access;
use streamspace_common::{Actor, Creator, Role};
use streamspace_domain::identity::Forbidden;
use streamspace_testkit::eventually;

use crate::{
    access::{Operation, operations, ours, ours_named},
    app::{Answer, App, PASSWORD, Person, any_id, key_of},
    forge::{Forge, parts},
    sign_in::{cheap, login},
};

async fn token(app: &App, who: &Person) -> String {
    app.set_password(who).await;
    let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug });
    login(app, body).await.expect(200).json()["accessToken"].as_str().unwrap().to_owned()
}

/// What somebody shows.
enum Shown {
    Bearer(String),
    Cookie(String),
}

impl Shown {
    fn on(&self, app: &App, method: Method, path: &str) -> RequestBuilder {
        let request = app.anonymous(method, path);
        match self {
            Self::Bearer(secret) => request.bearer_auth(secret),
            // As our own page sends it.
            Self::Cookie(cookie) => request.header("cookie", cookie).header("origin", app.url("")),
        }
    }
}

fn ask(app: &App, operation: &Operation, path: &str, shown: &Shown) -> RequestBuilder {
    let request = shown.on(app, operation.method.clone(), path);
    match operation.body() {
        Some(body) => request.json(&body),
        None => request,
    }
}

async fn call(app: &App, operation: &Operation, path: &str, shown: &Shown) -> Answer {
    Answer::of(ask(app, operation, path, shown)).await
}

/// Of a browser that somebody is signed in at.
async fn cookie(app: &App, who: &Person) -> String {
    app.set_password(who).await;
    let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug });
    let browser = app.anonymous(Method::POST, "/api/v1/auth/login").header("origin", app.url(""));
    let signed_in = Answer::of(browser.json(&body)).await.expect(200);
    signed_in.header("set-cookie").split(';').next().unwrap().to_owned()
}

fn closed() -> impl Iterator<Item = Operation> {
    operations().into_iter().filter(|operation| matches!(operation.access(), Access::Needs { .. }))
}

#[tokio::test]
async fn what_is_over_forged_or_taken_away_opens_nothing() {
    let app = App::start_with(cheap()).await;
    let ours = ours(&app).await;
    let good = token(&app, &app.ours.owner).await;
    let forge = Forge::ours(&app).await;
    let (_, claims) = parts(&good);
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let header = |name: &str, value: Value| {
        let mut header = forge.header();
        header[name] = value;
        header
    };
    let now = jiff::Timestamp::now().as_second();
    // That the forge works, so that what follows is refused for what it says.
    let path = "/api/v1/auth/profile";
    let opens = async |shown: &Shown| Answer::of(shown.on(&app, Method::GET, path)).await.status == 200;
    assert!(opens(&Shown::Bearer(forge.sign(&forge.header(), &claims))).await);

    let other_key = key_of(&app.queue, app.ours.id, app.ours.operator.id, &["*"]).await;
    app.execute(&format!("update users set active = false where id = '{}'", app.ours.operator.id)).await;
    let revoked = key_of(&app.queue, app.ours.id, app.ours.owner.id, &["*"]).await;
    app.execute("update api_keys set active = false where id = (select max(id::text)::uuid from api_keys)")
        .await;
    let expired = key_of(&app.queue, app.ours.id, app.ours.owner.id, &["*"]).await;
    app.execute(
        "update api_keys set expires_at = now() - interval '1 s' where id = (select max(id::text)::uuid from api_keys)",
    )
    .await;
    let disabled = token(&app, &app.ours.viewer).await;
    app.execute(&format!("update users set active = false where id = '{}'", app.ours.viewer.id)).await;
    let (ended, browser) = (token(&app, &app.ours.user).await, cookie(&app, &app.ours.user).await);
    app.execute(&format!("delete from sign_ins where user_id = '{}'", app.ours.user.id)).await;
    let suspended = token(&app, &app.theirs.owner).await;
    app.execute(&format!("update tenants set active = false where id = '{}'", app.theirs.id)).await;
    let theirs = app.theirs.id.to_string();
    let [first, middle, last] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let bad = [
        ("expired", forge.sign(&forge.header(), &with("exp", json!(now - 1)))),
        ("of another issuer", forge.sign(&forge.header(), &with("iss", json!("https://evil.example")))),
        ("of another tenant", forge.sign(&forge.header(), &with("tid", json!(theirs)))),
        (
            "of another person",
            forge.sign(&forge.header(), &with("sub", json!(app.ours.viewer.id.to_string()))),
        ),
        ("of no sign-in", forge.sign(&forge.header(), &with("sid", json!(any_id())))),
        ("of another kind", forge.sign(&header("typ", json!("JWT")), &claims)),
        ("of no kind", forge.sign(&json!({ "alg": "EdDSA", "kid": forge.kid }), &claims)),
        ("without claims", forge.sign(&forge.header(), &json!({}))),
        ("with a critical extension", forge.sign(&header("crit", json!(["exp"])), &claims)),
        ("signed by a stranger", Forge::stranger(forge.kid).sign(&forge.header(), &claims)),
        (
            "with a stranger's key id",
            Forge::stranger(any_id()).sign(&Forge::stranger(any_id()).header(), &claims),
        ),
        ("with a path as key id", forge.sign(&header("kid", json!("../../etc/passwd")), &claims)),
        ("with SQL as key id", forge.sign(&header("kid", json!("' or 1=1 --")), &claims)),
        ("signed with the public key", forge.hmac(&claims)),
        ("unsigned", forge.unsigned(&claims)),
        ("without its signature", format!("{first}.{middle}.")),
        ("with another's signature", format!("{first}.{middle}.{}", last.chars().rev().collect::<String>())),
        ("of a sign-in that ended", ended),
        ("of a tenant that is suspended", suspended),
        ("a key that was revoked", revoked),
        ("a key of who is disabled", other_key),
        ("a token of who is disabled", disabled),
        ("a key that is over", expired),
        ("a refresh token", "rt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned()),
    ];
    let bad = bad.map(|(what, bearer)| (what, Shown::Bearer(bearer)));
    let bad: Vec<_> =
        bad.into_iter().chain([("a browser's that is signed out", Shown::Cookie(browser))]).collect();
    // What was good a moment ago may be good for a second.
    for (what, shown) in &bad {
        eventually(Duration::from_secs(5), what, async || (!opens(shown).await).then_some(())).await;
    }
    for operation in closed() {
        let path = operation.path(&ours);
        for (what, shown) in &bad {
            let answer = call(&app, &operation, &path, shown).await;
            assert_eq!(answer.status, 401, "{what}: {} {path}: {}", operation.method, answer.text);
        }
    }
    assert!(opens(&Shown::Bearer(good)).await, "and all the while the good one was good");
}

#[tokio::test]
async fn a_key_opens_only_what_its_scopes_name() {
    let app = App::start_with(cheap()).await;
    let ours = ours(&app).await;
    let narrow = key_of(&app.queue, app.ours.id, app.ours.owner.id, &["monitoring.read"]).await;
    let narrow = Shown::Bearer(narrow);
    for operation in closed() {
        let Access::Needs { area, .. } = operation.access() else { continue };
        let answer = call(&app, &operation, &operation.path(&ours), &narrow).await;
        match area {
            Some(_) => assert_eq!(answer.status, 403, "{} {}", operation.method, operation.path),
            None => assert_ne!(answer.status, 403, "{} passes on what the key may", operation.path),
        }
    }
}

/// What would end that by which the walk goes.
const ENDS_THE_CALLER: [&str; 2] = ["/api/v1/auth/logout", "/api/v1/auth/change-password"];

/// An operation is closed to exactly the roles that the table says, by key, token and cookie alike.
#[tokio::test]
async fn every_role_gets_what_the_table_says() {
    let app = App::start_with(cheap()).await;
    // Things are changed and deleted, so each has their own to do it to.
    let admin = app.admin(&app.ours.owner).await;
    let owner = app.colleague(&app.ours.owner, Role::Owner, "another-owner").await;
    let mut operations: Vec<_> =
        closed().filter(|operation| !ENDS_THE_CALLER.contains(&operation.path.as_str())).collect();
    operations.sort_by_key(|operation| operation.method == Method::DELETE);
    for who in [&app.ours.viewer, &app.ours.user, &app.ours.operator, &admin, &owner] {
        let ours = ours_named(&app, who.role.as_str()).await;
        let actor = Actor {
            tenant: who.tenant,
            by: Creator::System,
            user: Some(who.id),
            key: None,
            role: who.role,
            platform: false,
        };
        let shown = [
            Shown::Bearer(who.key.clone()),
            Shown::Bearer(token(&app, who).await),
            Shown::Cookie(cookie(&app, who).await),
        ];
        let (mut let_in, mut refused) = (0, 0);
        for operation in &operations {
            let Access::Needs { permission, .. } = operation.access() else { continue };
            let path = operation.path(&ours);
            for shown in &shown {
                // Without its body: some never end.
                let answer = ask(&app, operation, &path, shown).send().await.unwrap();
                let status = answer.status().as_u16();
                let what = format!("{} {path} as {:?}: {status}", operation.method, who.role);
                assert!(status < 500 && status != 401, "{what}");
                let by_the_gate = status == 403 && {
                    let said = Answer::read(answer).await.text;
                    said.contains(&Forbidden(permission).to_string())
                };
                assert_eq!(by_the_gate, !permission.is_held_by(&actor), "{what}");
                let_in += u32::from((200..300).contains(&status));
                refused += u32::from(by_the_gate);
            }
        }
        println!("figure: as {:?} {let_in} calls came to something, the gate refused {refused}", who.role);
        assert!(who.role != Role::Owner || let_in > 2 * refused, "an owner gets somewhere");
    }
}

/// Whatever an id is of, to whom may not see it there is nothing: the answers are the same, letter by
/// letter.
#[tokio::test]
async fn absent_and_not_yours_are_one() {
    let app = App::start_with(cheap()).await;
    let ours = ours(&app).await;
    token(&app, &app.ours.owner).await;
    let sign_in: uuid::Uuid =
        sqlx::query_scalar("select id from sign_ins").fetch_one(app.queue.db().pool()).await.unwrap();
    let sign_in = sign_in.to_string();
    let ids = [&ours.job, &ours.schedule, &ours.team, &ours.key, &ours.owner, &ours.provider, &sign_in];
    let them = Shown::Bearer(app.theirs.owner.key.clone());
    let takes_an_id = |path: &str| path.contains("{id}") || path.contains("{teamId}");
    for operation in closed().filter(|operation| takes_an_id(&operation.path)) {
        let at = |id: &str| {
            let path = format!("{}{}", operation.path, operation.query());
            let path = path.replace("{id}", id).replace("{teamId}", id);
            path.replace("{userId}", id).replace("{permission}", "team.manage")
        };
        let told = async |id: &str| {
            let answer = call(&app, &operation, &at(id), &them).await;
            let mut told = answer.json();
            told["instance"].take();
            told["requestId"].take();
            (answer.status, told)
        };
        let absent = told(&any_id().to_string()).await;
        // What all tenants share is the platform's.
        let expected =
            if operation.path.contains("/workers/") && operation.method == Method::POST { 403 } else { 404 };
        assert_eq!(absent.0, expected, "{} {}: {}", operation.method, operation.path, absent.1);
        for id in ids {
            assert_eq!(told(id).await, absent, "{} {}", operation.method, operation.path);
        }
    }
}

#[tokio::test]
async fn an_oversized_body_is_refused_before_it_is_read() {
    let app = App::start_with(cheap()).await;
    let ours = ours(&app).await;
    let big = "x".repeat(2 << 20);
    for operation in operations().into_iter().filter(|operation| operation.body().is_some()) {
        let request = app
            .request(&app.ours.owner, operation.method.clone(), &operation.path(&ours))
            .header("content-type", "application/json")
            .body(format!("{{\"x\": \"{big}\"}}"));
        // The server may hang up while the rest is still being sent.
        if let Ok(answer) = request.send().await {
            assert_eq!(answer.status().as_u16(), 413, "{} {}", operation.method, operation.path);
        }
    }
}
