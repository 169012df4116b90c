//! The second factor: set up, asked for, lost, guessed.

use data_encoding::BASE32_NOPAD;
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};

use crate::{
    app::{Answer, App, PASSWORD, Person},
    cli_sign_in::{self, Browser, PROGRAM, authorize},
    sign_in::{cheap, login},
};

/// What an authenticator does, written a second time.
pub fn code(secret: &str, steps_from_now: i64) -> String {
    let key =
        hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &BASE32_NOPAD.decode(secret.as_bytes()).unwrap());
    let step = jiff::Timestamp::now().as_second() / 30 + steps_from_now;
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let at = usize::from(tag.as_ref()[19] & 15);
    let word = u32::from_be_bytes(tag.as_ref()[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", word % 1_000_000)
}

async fn password(app: &App, who: &Person) -> Answer {
    login(app, json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug })).await
}

async fn send(app: &App, method: Method, path: &str, token: &str, body: Value) -> Answer {
    Answer::of(app.anonymous(method, path).bearer_auth(token).json(&body)).await
}

async fn second(app: &App, challenge: &str, what: Value) -> Answer {
    let mut body = what;
    body["challenge"] = challenge.into();
    Answer::of(app.anonymous(Method::POST, "/api/v1/auth/login/mfa").json(&body)).await
}

async fn challenge(app: &App, who: &Person) -> String {
    let asked = password(app, who).await.expect(200).json();
    assert_eq!((&asked["mfaRequired"], &asked["expiresIn"]), (&json!(true), &json!(300)));
    assert!(asked.get("accessToken").is_none() && asked.get("user").is_none(), "{asked}");
    asked["challenge"].as_str().unwrap().to_owned()
}

struct SetUp {
    secret: String,
    recovery: Vec<String>,
    token: String,
}

/// With the code of the step before, so that this one's is still unused.
async fn set_up(app: &App, who: &Person) -> SetUp {
    app.set_password(who).await;
    let token = password(app, who).await.expect(200).json()["accessToken"].as_str().unwrap().to_owned();
    let enrolled =
        send(app, Method::POST, "/api/v1/auth/mfa/enroll", &token, json!({})).await.expect(200).json();
    let secret = enrolled["secret"].as_str().unwrap().to_owned();
    assert!(enrolled["otpauthUri"].as_str().unwrap().contains(&format!("secret={secret}")));
    assert!(enrolled["qrCode"].as_str().unwrap().starts_with("data:image/svg+xml;base64,"));
    // It does not count yet.
    password(app, who).await.expect(200).json()["accessToken"].as_str().unwrap();
    let verify = "/api/v1/auth/mfa/verify";
    send(app, Method::POST, verify, &token, json!({ "code": "000000x" })).await.problem(422, "invalid");
    let enabled = send(app, Method::POST, verify, &token, json!({ "code": code(&secret, -1) }))
        .await
        .expect(200)
        .json();
    let recovery: Vec<_> =
        enabled["recoveryCodes"].as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_owned()).collect();
    assert_eq!(recovery.len(), 10);
    SetUp { secret, recovery, token }
}

#[tokio::test]
async fn a_code_completes_a_sign_in_once() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    let SetUp { secret, token, .. } = set_up(&app, who).await;
    let asked = challenge(&app, who).await;
    second(&app, &asked, json!({ "code": code(&secret, -1) })).await.problem(401, "unauthenticated");
    let good = code(&secret, 0);
    let signed_in = second(&app, &asked, json!({ "code": good })).await.expect(200).json();
    assert_eq!(signed_in["user"]["mfaEnabled"], true);
    // Neither the challenge nor the code works again, alone or together.
    second(&app, &asked, json!({ "code": code(&secret, 1) })).await.problem(401, "unauthenticated");
    let asked = challenge(&app, who).await;
    second(&app, &asked, json!({ "code": good })).await.problem(401, "unauthenticated");
    second(&app, &asked, json!({ "code": code(&secret, 1) })).await.expect(200);
    send(&app, Method::POST, "/api/v1/auth/mfa/enroll", &token, json!({})).await.problem(409, "conflict");
}

#[tokio::test]
async fn of_many_that_come_with_one_code_at_once_one_is_in() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    let SetUp { secret, .. } = set_up(&app, who).await;
    let (one, other) = (challenge(&app, who).await, challenge(&app, who).await);
    let good = code(&secret, 0);
    let tries =
        (0..10).map(|n| second(&app, if n % 2 == 0 { &one } else { &other }, json!({ "code": good })));
    let answers = futures::future::join_all(tries).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 401)));
}

#[tokio::test]
async fn codes_on_paper_work_once_each() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    let SetUp { recovery, .. } = set_up(&app, who).await;
    let typed = recovery[0].to_lowercase().replace('-', "");
    let asked = challenge(&app, who).await;
    second(&app, &asked, json!({ "recoveryCode": typed })).await.expect(200);
    let asked = challenge(&app, who).await;
    second(&app, &asked, json!({ "recoveryCode": recovery[0] })).await.problem(401, "unauthenticated");
    second(&app, &asked, json!({ "recoveryCode": recovery[1], "code": "123456" }))
        .await
        .problem(422, "invalid");
    second(&app, &asked, json!({ "recoveryCode": recovery[1] })).await.expect(200);
    assert_eq!(app.count("select count(*) from audit where action = 'mfa.recover'").await, 2);
    assert_eq!(app.count("select count(*) from recovery_codes").await, 8);
}

#[tokio::test]
async fn who_guesses_codes_is_locked_out_and_knowing_the_password_does_not_help() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    let SetUp { secret, .. } = set_up(&app, who).await;
    let asked = challenge(&app, who).await;
    for n in 0..4 {
        let refused = second(&app, &asked, json!({ "code": format!("00000{n}") })).await;
        assert!(refused.problem(401, "unauthenticated").text.contains("this code is not accepted"));
        // The right password in between forgives nothing.
        challenge(&app, who).await;
    }
    second(&app, &asked, json!({ "code": "999999" })).await.problem(401, "unauthenticated");
    second(&app, &asked, json!({ "code": code(&secret, 0) })).await.problem(401, "unauthenticated");
    password(&app, who).await.problem(401, "unauthenticated");
    assert_eq!(app.count("select count(*) from audit where action = 'users.lock'").await, 1);
}

#[tokio::test]
async fn a_challenge_is_good_for_five_minutes() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    let SetUp { secret, .. } = set_up(&app, who).await;
    let asked = challenge(&app, who).await;
    app.execute("update sign_in_challenges set expires_at = expires_at - interval '301 s'").await;
    second(&app, &asked, json!({ "code": code(&secret, 0) })).await.problem(401, "unauthenticated");
    for none in ["", "sc_", "sc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "' or 1=1"] {
        second(&app, none, json!({ "code": "123456" })).await.problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn it_is_switched_off_by_who_can_show_it() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    let SetUp { secret, token, .. } = set_up(&app, who).await;
    let path = "/api/v1/auth/mfa";
    send(&app, Method::DELETE, path, &token, json!({ "code": "000000" })).await.problem(422, "invalid");
    send(&app, Method::DELETE, path, &token, json!({})).await.problem(422, "invalid");
    let by_key = app.request(who, Method::DELETE, path).json(&json!({ "code": code(&secret, 0) }));
    Answer::of(by_key).await.problem(409, "no-sign-in");
    send(&app, Method::DELETE, path, &token, json!({ "code": code(&secret, 0) })).await.expect(204);
    assert!(password(&app, who).await.expect(200).json()["accessToken"].is_string());
    for action in ["mfa.enable", "mfa.disable"] {
        assert_eq!(app.count(&format!("select count(*) from audit where action = '{action}'")).await, 1);
    }
    let kept = app.count("select count(*) from users where totp_secret is not null").await;
    assert_eq!((kept, app.count("select count(*) from recovery_codes").await), (0, 0));
}

#[tokio::test]
async fn a_tenant_that_wants_it_gets_it() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.execute(&format!(
        "insert into settings (tenant_id, key, value) values ('{}', 'auth.mfa_required', 'true')",
        app.ours.id
    ))
    .await;
    let SetUp { token, .. } = set_up(&app, who).await;
    send(&app, Method::GET, "/api/v1/jobs", &token, json!({})).await.expect(200);
}

#[tokio::test]
async fn who_has_lost_it_is_helped_by_whoever_manages_them() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    set_up(&app, who).await;
    let path = format!("/api/v1/auth/users/{}", who.id);
    let change =
        async |by: &Person, body: Value| Answer::of(app.request(by, Method::PATCH, &path).json(&body)).await;
    change(&app.ours.operator, json!({ "mfaEnabled": false })).await.problem(403, "forbidden");
    change(&app.theirs.owner, json!({ "mfaEnabled": false })).await.problem(404, "not-found");
    change(&app.ours.owner, json!({ "mfaEnabled": true })).await.problem(422, "invalid");
    let changed = change(&app.ours.owner, json!({ "mfaEnabled": false })).await.expect(200).json();
    assert_eq!(changed["mfaEnabled"], false);
    assert!(password(&app, who).await.expect(200).json()["accessToken"].is_string());
    assert_eq!(app.count("select count(*) from audit where action = 'mfa.remove'").await, 1);
    // One's own is switched off by showing it.
    let own = format!("/api/v1/auth/users/{}", app.ours.owner.id);
    let request = app.request(&app.ours.owner, Method::PATCH, &own).json(&json!({ "mfaEnabled": false }));
    Answer::of(request).await.problem(409, "own-second-factor");
}

/// A browser that was left open does not lock its person out.
#[tokio::test]
async fn setting_one_up_takes_a_sign_in_of_late() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let enroll =
        async |token: &str| send(&app, Method::POST, "/api/v1/auth/mfa/enroll", token, json!({})).await;
    let sign_in =
        async || password(&app, who).await.expect(200).json()["accessToken"].as_str().unwrap().to_owned();
    let token = sign_in().await;
    enroll(&token).await.expect(200);
    app.execute("update sign_ins set created_at = now() - interval '16 minutes'").await;
    enroll(&token).await.problem(403, "sign-in-again");
    // Nor does a program that it let in.
    app.execute("update sign_ins set created_at = now(), method = 'cli'").await;
    enroll(&token).await.problem(403, "sign-in-again");
    enroll(&sign_in().await).await.expect(200);
}

/// Whoever has a browser's session would guess on with a program's.
#[tokio::test]
async fn another_sign_in_that_shows_nothing_forgives_nothing() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let browser = Browser::of(&app, who).await;
    let SetUp { token, .. } = set_up(&app, who).await;
    for _ in 0..5 {
        send(&app, Method::DELETE, "/api/v1/auth/mfa", &token, json!({ "code": "000000" }))
            .await
            .problem(422, "invalid");
        let asked = browser.is_asked(&authorize(PROGRAM)).await;
        let code = cli_sign_in::code(&browser.goes_to(&asked).await);
        cli_sign_in::exchange(&app, &cli_sign_in::shown(&code)).await.expect(200);
    }
    let closed = format!("select count(*) from users where id = '{}' and locked_until > now()", who.id);
    assert_eq!(app.count(&closed).await, 1);
    let guesses = "select count(*) from audit where action = 'sign_ins.fail' and after->>'factor' = 'second'";
    assert_eq!(app.count(guesses).await, 5);
}

/// Whoever has an administrator's session would try every code there is.
#[tokio::test]
async fn nobody_opens_their_own_account() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.owner;
    let SetUp { token, .. } = set_up(&app, who).await;
    let wrong =
        async || send(&app, Method::DELETE, "/api/v1/auth/mfa", &token, json!({ "code": "000000" })).await;
    for _ in 0..4 {
        wrong().await.problem(422, "invalid");
    }
    let myself = format!("/api/v1/auth/users/{}", who.id);
    send(&app, Method::PATCH, &myself, &token, json!({ "locked": false })).await.problem(409, "conflict");
    let by_key = app.request(who, Method::PATCH, &myself).json(&json!({ "locked": false }));
    Answer::of(by_key).await.problem(409, "conflict");
    wrong().await.problem(422, "invalid");
    let closed = format!("select count(*) from users where id = '{}' and locked_until > now()", who.id);
    assert_eq!(app.count(&closed).await, 1);
}
