//! Every operation of the document, with every credential that must not open it, and as every role: the
//! answer is the one that the table of permissions says, and never a mistake of ours.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use streamspace_api::operations::Access;
use streamspace_common::{Actor, Creator, Role};
use streamspace_testkit::eventually;

use crate::{
    access::{Operation, operations, ours},
    app::{Answer, App, PASSWORD, Person, any_id, key_of},
    forge::{Forge, parts},
    sign_in::{cheap, login},
};

async fn token(app: &App, who: &Person) -> String {
    app.set_password(who).await;
    let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug });
    login(app, body).await.expect(200).json()["accessToken"].as_str().unwrap().to_owned()
}

fn ask(app: &App, operation: &Operation, path: &str, bearer: &str) -> RequestBuilder {
    let request = app.anonymous(operation.method.clone(), path).bearer_auth(bearer);
    match operation.body() {
        Some(body) => request.json(&body),
        None => request,
    }
}

async fn call(app: &App, operation: &Operation, path: &str, bearer: &str) -> Answer {
    Answer::of(ask(app, operation, path, bearer)).await
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
    let opens = async |bearer: &str| {
        Answer::of(app.anonymous(Method::GET, path).bearer_auth(bearer)).await.status == 200
    };
    assert!(opens(&forge.sign(&forge.header(), &claims)).await);

    let other_key = key_of(&app.queue, app.ours.id, app.ours.operator.id, &["*"]).await;
    app.execute(&format!("update users set active = false where id = '{}'", app.ours.operator.id)).await;
    let revoked = key_of(&app.queue, app.ours.id, app.ours.owner.id, &["*"]).await;
    app.execute("update api_keys set active = false where id = (select max(id::text)::uuid from api_keys)")
        .await;
    let ended = token(&app, &app.ours.user).await;
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
        ("a refresh token", "rt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned()),
    ];
    // What was good a moment ago may be good for a second.
    for (what, bearer) in &bad {
        eventually(Duration::from_secs(5), what, async || (!opens(bearer).await).then_some(())).await;
    }
    for operation in closed() {
        let path = operation.path(&ours);
        for (what, bearer) in &bad {
            let answer = call(&app, &operation, &path, bearer).await;
            assert_eq!(answer.status, 401, "{what}: {} {path}: {}", operation.method, answer.text);
        }
    }
    assert!(opens(&good).await, "and all the while the good one was good");
}

#[tokio::test]
async fn a_key_opens_only_what_its_scopes_name() {
    let app = App::start_with(cheap()).await;
    let ours = ours(&app).await;
    let narrow = key_of(&app.queue, app.ours.id, app.ours.owner.id, &["monitoring.read"]).await;
    for operation in closed() {
        let Access::Needs { area, .. } = operation.access() else { continue };
        let answer = call(&app, &operation, &operation.path(&ours), &narrow).await;
        match area {
            Some(_) => assert_eq!(answer.status, 403, "{} {}", operation.method, operation.path),
            None => assert_ne!(answer.status, 403, "{} passes on what the key may", operation.path),
        }
    }
}

/// An operation is closed to exactly the roles that the table says, by key and by token alike.
#[tokio::test]
async fn every_role_gets_what_the_table_says() {
    let app = App::start_with(cheap()).await;
    let ours = ours(&app).await;
    let admin = app.admin(&app.ours.owner).await;
    for who in [&app.ours.viewer, &app.ours.user, &app.ours.operator, &admin, &app.ours.owner] {
        let actor = Actor {
            tenant: who.tenant,
            by: Creator::System,
            user: Some(who.id),
            key: None,
            role: who.role,
            platform: false,
        };
        let token = token(&app, who).await;
        for operation in closed() {
            // It would end what the walk goes by.
            if ["/api/v1/auth/logout", "/api/v1/auth/change-password"].contains(&operation.path.as_str()) {
                continue;
            }
            let Access::Needs { permission, .. } = operation.access() else { continue };
            let path = operation.path(&ours);
            for bearer in [&who.key, &token] {
                // An owner's own acts are walked elsewhere: here nothing is to be changed.
                if who.role == Role::Owner && operation.method != Method::GET {
                    continue;
                }
                // Without its body: some never end.
                let answer = ask(&app, &operation, &path, bearer).send().await.unwrap();
                let status = answer.status().as_u16();
                let what = format!("{} {path} as {:?}: {status}", operation.method, who.role);
                assert!(status < 500, "{what}");
                match permission.is_held_by(&actor) {
                    // It asks a person, so it takes a browser.
                    true if operation.path == "/api/v1/auth/cli/authorize" => {}
                    true => {
                        assert!(status != 401 && (status != 403 || operation.method != Method::GET), "{what}")
                    }
                    false => assert_eq!(status, 403, "{what}"),
                }
            }
        }
    }
}

/// Whatever an id is of, to whom may not see it there is nothing: the answers are the same, letter by
/// letter.
#[tokio::test]
async fn absent_and_not_yours_are_one() {
    let app = App::start_with(cheap()).await;
    let ours = ours(&app).await;
    let ids = [&ours.job, &ours.schedule, &ours.team, &ours.key, &ours.owner];
    for operation in
        closed().filter(|operation| operation.path.contains("{id}") || operation.path.contains("{teamId}"))
    {
        let at = |id: &str| {
            let path = operation.path.replace("{id}", id).replace("{teamId}", id);
            path.replace("{userId}", id).replace("{permission}", "team.manage").replace("{token}", "sl_x")
        };
        let told = async |id: &str| {
            let answer = call(&app, &operation, &at(id), &app.theirs.owner.key).await;
            let mut told = answer.json();
            told["instance"].take();
            told["requestId"].take();
            (answer.status, told)
        };
        let absent = told(&any_id().to_string()).await;
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
