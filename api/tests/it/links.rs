//! Links that are mailed: by a real worker, over a real SMTP server.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use streamspace_common::Role;
use streamspace_testkit::{Percentiles, Smtp, SmtpOptions, eventually};

use crate::{
    app::{Answer, App, PASSWORD, Person},
    secrets::{LOG, database},
    sign_in::{cheap, login},
};

pub const SOON: Duration = Duration::from_secs(20);
pub const NEW: &str = "a brand new passphrase";

async fn app_with(options: SmtpOptions) -> (App, Smtp) {
    let smtp = Smtp::start(options).await.unwrap();
    let app = App::start_with(cheap()).await;
    app.mails_to(&smtp);
    (app, smtp)
}

async fn app() -> (App, Smtp) {
    app_with(SmtpOptions::default()).await
}

pub async fn anyone(app: &App, path: &str, body: Value) -> Answer {
    Answer::of(app.anonymous(Method::POST, &format!("/api/v1/auth/{path}")).json(&body)).await
}

pub async fn ask(app: &App, email: &str, tenant: Option<&str>) {
    anyone(app, "password-reset/request", json!({ "email": email, "tenant": tenant })).await.expect(202);
}

fn confirmation(token: &str) -> Value {
    json!({ "token": token, "password": NEW, "passwordConfirmation": NEW })
}

pub async fn confirm(app: &App, token: &str) -> Answer {
    anyone(app, "password-reset/confirm", confirmation(token)).await
}

async fn accept(app: &App, token: &str) -> Answer {
    let body = json!({ "name": "Ada Lovelace", "password": NEW, "passwordConfirmation": NEW });
    anyone(app, &format!("invitations/{token}/accept"), body).await
}

async fn invite(app: &App, who: &Person, email: &str, role: &str) -> Answer {
    app.post(who, "/api/v1/auth/invitations", json!({ "email": email, "role": role })).await
}

async fn log_in(app: &App, who: &Person, password: &str) -> Answer {
    login(app, json!({ "email": who.email, "password": password, "tenant": who.slug })).await
}

/// The tokens of a mail's links, in their order.
fn tokens(text: &str) -> Vec<String> {
    text.split("#token=").skip(1).map(|rest| rest.split_whitespace().next().unwrap().to_owned()).collect()
}

pub fn token(text: &str) -> String {
    let found = tokens(text);
    let [token] = found.as_slice() else { panic!("one link is expected: {text}") };
    token.clone()
}

/// Waits until no job that mails is waiting or running.
async fn all_is_mailed(app: &App) {
    let open = "select count(*) from jobs where queue = 'mail' and state not in ('succeeded', 'failed')";
    eventually(SOON, "the mails are sent", async || (app.count(open).await == 0).then_some(())).await;
}

async fn links(app: &App, purpose: &str) -> i64 {
    app.count(&format!("select count(*) from mailed_links where purpose = '{purpose}'")).await
}

#[tokio::test]
async fn a_forgotten_password_is_replaced_once() {
    let (app, smtp) = app().await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let signed_in = log_in(&app, who, PASSWORD).await.expect(200).json();
    for _ in 0..5 {
        log_in(&app, who, "wrong").await.expect(401);
    }
    log_in(&app, who, PASSWORD).await.expect(401); // closed

    ask(&app, &who.email.to_uppercase(), Some(&who.slug)).await;
    let mail = smtp.mail(1, &who.email, SOON).await;
    assert!(mail.text.contains("https://streams.example/reset-password#token=ml_"), "{}", mail.text);
    assert!(mail.text.contains("\"Ours\""), "{}", mail.text);
    let token = token(&mail.text);
    let weak = json!({ "token": token, "password": "password", "passwordConfirmation": "password" });
    anyone(&app, "password-reset/confirm", weak).await.problem(422, "invalid");
    let other = json!({ "token": token, "password": NEW, "passwordConfirmation": PASSWORD });
    anyone(&app, "password-reset/confirm", other).await.problem(422, "invalid");
    confirm(&app, &token).await.expect(204);

    confirm(&app, &token).await.problem(410, "gone");
    log_in(&app, who, PASSWORD).await.expect(401);
    let person = log_in(&app, who, NEW).await.expect(200).json()["user"].clone();
    assert_eq!(person["emailVerified"], true, "whoever had the mail has the address");
    let old = signed_in["accessToken"].as_str().unwrap();
    let request = app.anonymous(Method::GET, "/api/v1/auth/profile").bearer_auth(old);
    Answer::of(request).await.problem(401, "unauthenticated");
    let audited = app.count("select count(*) from audit where action in ('links.mail', 'links.use', 'users.change_password', 'users.verify_email')").await;
    assert_eq!(audited, 4);
}

#[tokio::test]
async fn of_many_who_come_with_a_link_one_is_let_in() {
    let (app, smtp) = app().await;
    let who = &app.ours.user;
    ask(&app, &who.email, Some(&who.slug)).await;
    let link = token(&smtp.mail(1, &who.email, SOON).await.text);
    let answers = join_all((0..20).map(|_| confirm(&app, &link))).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(204), count(410)), (1, 19));

    invite(&app, &app.ours.owner, "new@example.org", "user").await.expect(201);
    let link = token(&smtp.mail(1, "new@example.org", SOON).await.text);
    let answers = join_all((0..20).map(|_| accept(&app, &link))).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(200), count(410)), (1, 19));
    assert_eq!(app.count("select count(*) from sign_ins where method = 'invitation'").await, 1);
}

#[tokio::test]
async fn a_mail_has_a_link_for_every_tenant_that_knows_the_address() {
    let (app, smtp) = app().await;
    let (ours, theirs) = (&app.ours.user, &app.theirs.user);
    assert_eq!(ours.email, theirs.email);
    app.execute(&format!("update users set active = false where id = '{}'", app.theirs.viewer.id)).await;
    ask(&app, &ours.email, None).await;
    let mail = smtp.mail(1, &ours.email, SOON).await;
    let found = tokens(&mail.text);
    assert_eq!(found.len(), 2, "{}", mail.text);
    assert!(mail.text.contains("\"Ours\"") && mail.text.contains("\"Theirs\""), "{}", mail.text);
    let first_is_ours = mail.text.find("\"Ours\"") < mail.text.find("\"Theirs\"");
    confirm(&app, &found[usize::from(!first_is_ours)]).await.expect(204);
    log_in(&app, ours, NEW).await.expect(200);
    log_in(&app, theirs, NEW).await.expect(401); // each is its tenant's alone

    ask(&app, &app.ours.viewer.email, None).await;
    assert_eq!(tokens(&smtp.mail(1, &app.ours.viewer.email, SOON).await.text).len(), 1, "disabled there");
    ask(&app, &app.theirs.viewer.email, Some(&app.theirs.viewer.slug)).await;
    ask(&app, "nobody@example.org", None).await;
    all_is_mailed(&app).await;
    assert_eq!(smtp.received().unwrap().len(), 2, "no mail to who is disabled, and to nobody");
}

#[tokio::test]
async fn a_link_ends_with_its_time_its_address_and_its_person() {
    let (app, smtp) = app().await;
    let who = &app.ours.user;
    let shift = |time: &str| {
        format!(
            "update mailed_links set created_at = created_at - interval '{time}', expires_at = expires_at - interval '{time}'"
        )
    };
    let next = async |n: usize| {
        ask(&app, &who.email, Some(&who.slug)).await;
        let resets = async || {
            let mails =
                smtp.received().unwrap().into_iter().filter(|mail| mail.text.contains("/reset-password#"));
            mails.map(|mail| token(&mail.text)).nth(n - 1)
        };
        eventually(SOON, format!("the link {n} comes"), resets).await
    };
    let old = next(1).await;
    app.execute(&shift("61 minutes")).await;
    confirm(&app, &old).await.problem(410, "gone");

    let moved = next(2).await;
    let path = format!("/api/v1/auth/users/{}", who.id);
    let patch = |body: Value| Answer::of(app.request(&app.ours.owner, Method::PATCH, &path).json(&body));
    patch(json!({ "email": "elsewhere@example.org" })).await.expect(200);
    confirm(&app, &moved).await.problem(410, "gone");
    patch(json!({ "email": who.email })).await.expect(200);

    let disabled = next(3).await;
    patch(json!({ "active": false })).await.expect(200);
    confirm(&app, &disabled).await.problem(410, "gone");
    patch(json!({ "active": true })).await.expect(200);
    confirm(&app, &disabled).await.problem(410, "gone");
    let last = next(4).await;
    app.execute(&shift("59 minutes")).await;
    confirm(&app, &last).await.expect(204);
    confirm(&app, &moved).await.problem(410, "gone");

    for wrong in ["", "ml_", "ml_x", &format!("ml_{}", "A".repeat(43)), &old.replace("ml_", "rt_")] {
        confirm(&app, wrong).await.problem(404, "not-found");
        anyone(&app, "email/verify", json!({ "token": wrong })).await.problem(404, "not-found");
    }
    // Each in its place.
    accept(&app, &last).await.problem(404, "not-found");
    anyone(&app, "email/verify", json!({ "token": last })).await.problem(404, "not-found");
}

/// Anybody's people may be given a stranger's address.
#[tokio::test]
async fn an_address_gets_twenty_links_an_hour() {
    let (app, smtp) = app().await;
    let who = &app.ours.user;
    app.execute(&format!(
        "insert into mailed_links (secret_hash, tenant_id, user_id, email, purpose, created_at, expires_at)
         select sha256(n::text::bytea), '{}', '{}', upper('{}'), 'email', now(), now()
         from generate_series(1, 20) n",
        app.theirs.id, app.theirs.owner.id, who.email
    ))
    .await;
    ask(&app, &who.email, Some(&who.slug)).await;
    all_is_mailed(&app).await;
    assert!(smtp.received().unwrap().is_empty());
    app.execute("delete from mailed_links where secret_hash = sha256('1'::bytea)").await;
    ask(&app, &who.email, Some(&who.slug)).await;
    smtp.mail(1, &who.email, SOON).await;
}

#[tokio::test]
async fn a_person_gets_three_links_an_hour() {
    let (app, smtp) = app().await;
    let who = &app.ours.user;
    for n in 1..=3 {
        ask(&app, &who.email, Some(&who.slug)).await;
        smtp.mail(n, &who.email, SOON).await;
    }
    join_all((0..5).map(|_| ask(&app, &who.email, None))).await;
    all_is_mailed(&app).await;
    let theirs = smtp.received().unwrap();
    let ours = theirs.iter().filter(|mail| mail.text.contains("\"Ours\"")).count();
    assert_eq!(ours, 3, "{theirs:?}");
    assert_eq!(links(&app, "reset").await, 6, "three of each tenant, although many asked at once");
    app.execute("update mailed_links set created_at = created_at - interval '1 hour'").await;
    ask(&app, &who.email, Some(&who.slug)).await;
    all_is_mailed(&app).await;
    assert_eq!(links(&app, "reset").await, 7);
}

#[tokio::test]
async fn somebody_is_invited_and_comes() {
    let (app, smtp) = app().await;
    let owner = &app.ours.owner;
    let body = json!({ "email": "ada@example.org", "username": "ada", "role": "operator" });
    let made = app.post(owner, "/api/v1/auth/invitations", body).await.expect(201);
    let (location, made) = (made.header("location").to_owned(), made.json());
    assert_eq!((&made["username"], &made["role"]), (&json!("ada"), &json!("operator")));
    let job = app.get(owner, &format!("/api/v1/jobs/{}?wait=10s", made["jobId"].as_str().unwrap())).await;
    assert_eq!(job.expect(200).json()["state"], "succeeded");
    let listed = app.get(owner, &location).await.expect(200).json();
    assert_eq!((&listed["id"], &listed["emailVerified"]), (&made["id"], &json!(false)));

    let mail = smtp.mail(1, "ada@example.org", SOON).await;
    assert!(mail.text.contains("https://streams.example/accept-invitation#token=ml_"), "{}", mail.text);
    let link = token(&mail.text);
    let path = format!("/api/v1/auth/invitations/{link}");
    let look = async || Answer::of(app.anonymous(Method::GET, &path)).await;
    for _ in 0..2 {
        let told = look().await.expect(200).json();
        let expected = json!({
            "tenantName": "Ours", "email": "ada@example.org", "name": "ada@example.org",
            "role": "operator", "expiresAt": told["expiresAt"],
        });
        assert_eq!(told, expected);
    }
    let signed_in = accept(&app, &link).await.expect(200).json();
    assert_eq!((&signed_in["tokenType"], &signed_in["tenant"]["slug"]), (&json!("Bearer"), &json!("ours")));
    let user = &signed_in["user"];
    assert_eq!(
        (&user["name"], &user["role"], &user["emailVerified"]),
        (&json!("Ada Lovelace"), &json!("operator"), &json!(true))
    );
    let access = signed_in["accessToken"].as_str().unwrap();
    let request = app.anonymous(Method::GET, "/api/v1/auth/profile").bearer_auth(access);
    assert_eq!(Answer::of(request).await.expect(200).json()["username"], "ada");
    login(&app, json!({ "email": "ada@example.org", "password": NEW })).await.expect(200);

    look().await.problem(410, "gone");
    accept(&app, &link).await.problem(410, "gone");
    invite(&app, owner, "ADA@example.org", "user").await.problem(409, "conflict");
}

#[tokio::test]
async fn whoever_has_not_come_is_invited_again() {
    let (app, smtp) = app().await;
    let owner = &app.ours.owner;
    let first = invite(&app, owner, "ada@example.org", "viewer").await.expect(201).json();
    let old = token(&smtp.mail(1, "ada@example.org", SOON).await.text);
    app.execute("update mailed_links set expires_at = expires_at - interval '7 days 1 second'").await;
    accept(&app, &old).await.problem(410, "gone");

    let register = json!({ "email": "ada@example.org", "name": "Ada", "role": "user", "invite": true });
    let again = app.post(owner, "/api/v1/auth/register/user", register).await.expect(201).json();
    assert_eq!(again["id"], first["id"]);
    assert_eq!((&again["role"], &again["name"]), (&json!("user"), &json!("Ada")));
    let link = token(&smtp.mail(2, "ada@example.org", SOON).await.text);
    app.execute("update mailed_links set expires_at = expires_at - interval '6 days 23 hours'").await;
    // A refusal does not repeat it: it is still good.
    let short = json!({ "password": "x", "passwordConfirmation": "x" });
    let refused = anyone(&app, &format!("invitations/{link}/accept"), short).await.problem(422, "invalid");
    assert!(!refused.text.contains(&link), "{}", refused.text);
    let answer = anyone(
        &app,
        &format!("invitations/{link}/accept"),
        json!({ "password": NEW, "passwordConfirmation": NEW }),
    )
    .await;
    assert_eq!(answer.expect(200).json()["user"]["name"], "Ada");
}

#[tokio::test]
async fn nobody_invites_above_themselves() {
    let (app, _smtp) = app().await;
    app.execute(&format!("update users set role = 'admin' where id = '{}'", app.ours.operator.id)).await;
    let admin = &app.ours.operator;
    for role in ["admin", "owner"] {
        invite(&app, admin, "ada@example.org", role).await.problem(403, "forbidden");
    }
    invite(&app, admin, "ada@example.org", "operator").await.expect(201);
    // Nor makes more of somebody who was invited, or takes an owner's invitation over.
    invite(&app, admin, "ada@example.org", "owner").await.problem(403, "forbidden");
    invite(&app, &app.ours.owner, "eve@example.org", "owner").await.expect(201);
    invite(&app, admin, "eve@example.org", "user").await.problem(403, "forbidden");
    for who in [&app.ours.user, &app.ours.viewer] {
        assert!(who.role < Role::Admin);
        invite(&app, who, "bob@example.org", "viewer").await.problem(403, "forbidden");
    }
    let without_either = json!({ "email": "bob@example.org", "name": "Bob", "role": "user" });
    app.post(admin, "/api/v1/auth/register/user", without_either).await.problem(422, "invalid");
    let with_both = json!({
        "email": "bob@example.org", "name": "Bob", "role": "user", "invite": true,
        "password": NEW, "passwordConfirmation": NEW,
    });
    app.post(admin, "/api/v1/auth/register/user", with_both).await.problem(422, "invalid");
}

#[tokio::test]
async fn an_address_is_shown_to_be_its_persons() {
    let (app, smtp) = app().await;
    let owner = &app.ours.owner;
    let register = json!({
        "email": "ada@example.org", "name": "Ada", "role": "user", "password": NEW, "passwordConfirmation": NEW,
    });
    let made = app.post(owner, "/api/v1/auth/register/user", register).await.expect(201).json();
    let path = format!("/api/v1/auth/users/{}", made["id"].as_str().unwrap());
    let verified = async || app.get(owner, &path).await.expect(200).json()["emailVerified"] == true;
    let mail = smtp.mail(1, "ada@example.org", SOON).await;
    assert!(mail.text.contains("https://streams.example/verify-email#token=ml_"), "{}", mail.text);
    let first = token(&mail.text);
    assert!(!verified().await);
    anyone(&app, "email/verify", json!({ "token": first })).await.expect(204);
    assert!(verified().await);
    anyone(&app, "email/verify", json!({ "token": first })).await.problem(410, "gone");

    let change = |email: &str| {
        let request = app.request(owner, Method::PATCH, &path).json(&json!({ "email": email }));
        async { Answer::of(request).await.expect(200).json() }
    };
    assert_eq!(change("ADA@example.org").await["emailVerified"], true, "it is the same");
    assert_eq!(change("ada@example.com").await["emailVerified"], false);
    let second = token(&smtp.mail(1, "ada@example.com", SOON).await.text);
    // The link to the address of before proves nothing of the next.
    assert_eq!(change("ada@example.net").await["emailVerified"], false);
    anyone(&app, "email/verify", json!({ "token": second })).await.problem(410, "gone");
    assert!(!verified().await);
    let third = token(&smtp.mail(1, "ada@example.net", SOON).await.text);
    anyone(&app, "email/verify", json!({ "token": third })).await.expect(204);
    assert!(verified().await);
}

#[tokio::test]
async fn mail_that_is_not_taken_is_sent_again_and_mail_that_is_refused_is_not() {
    let answers = vec!["451 4.3.0 later", "550 5.1.1 unknown"];
    let (app, smtp) = app_with(SmtpOptions { answers, ..SmtpOptions::default() }).await;
    let who = &app.ours.user;
    ask(&app, &who.email, Some(&who.slug)).await;
    let failed = "select count(*) from jobs where queue = 'mail' and state = 'retrying'";
    eventually(SOON, "the first attempt fails", async || (app.count(failed).await == 1).then_some(())).await;
    assert_eq!(links(&app, "reset").await, 0, "what nobody got is no link");
    // The second is another's: it is refused for good.
    let made = invite(&app, &app.ours.owner, "typo@example.org", "user").await.expect(201).json();
    let job = app
        .get(&app.ours.owner, &format!("/api/v1/jobs/{}?wait=20s", made["jobId"].as_str().unwrap()))
        .await
        .expect(200)
        .json();
    assert_eq!(job["state"], "failed", "{job}");
    assert!(job["errors"][0]["message"].as_str().unwrap().contains("550 5.1.1"), "{job}");
    let link = token(&smtp.mail(1, &who.email, SOON).await.text);
    confirm(&app, &link).await.expect(204);
    assert_eq!(smtp.received().unwrap().len(), 1);
}

#[tokio::test]
async fn whether_somebody_has_an_address_is_not_told() {
    // Without a worker: in one process with this one it would take its time from the next request.
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let mut answers = BTreeSet::new();
    for n in 0..240 {
        let (times, email) = match n % 2 {
            0 => (&mut known, who.email.clone()),
            _ => (&mut unknown, format!("nobody{n}@example.org")),
        };
        let start = Instant::now();
        let answer = anyone(&app, "password-reset/request", json!({ "email": email })).await;
        // The first warm up.
        if n >= 40 {
            times.push(start.elapsed());
        }
        let told: Vec<_> = answer
            .headers
            .iter()
            .filter(|(name, _)| *name != "date" && *name != "x-request-id" && *name != "ratelimit")
            .collect();
        answers.insert(format!("{} {told:?} {}", answer.status, answer.text));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    let (known, unknown) = (Percentiles::of(known), Percentiles::of(unknown));
    let ratio = known.p(50.0).as_secs_f64() / unknown.p(50.0).as_secs_f64();
    assert!((0.7..1.4).contains(&ratio), "known {known}\nunknown {unknown}");
}

#[tokio::test]
async fn no_row_and_no_line_of_the_log_knows_a_link() {
    let log = LOG.clone();
    let (app, smtp) = app_with(SmtpOptions { answers: vec!["451 4.3.0 later"], ..Default::default() }).await;
    let who = &app.ours.user;
    ask(&app, &who.email, Some(&who.slug)).await;
    let reset = token(&smtp.mail(1, &who.email, SOON).await.text);
    let body = json!({ "email": "ada@example.org", "role": "user" });
    let request = app.request(&app.ours.owner, Method::POST, "/api/v1/auth/invitations");
    Answer::of(request.header("idempotency-key", "once").json(&body)).await.expect(201);
    let invitation = token(&smtp.mail(1, "ada@example.org", SOON).await.text);
    let register = json!({
        "email": "bob@example.org", "name": "Bob", "role": "user", "password": NEW, "passwordConfirmation": NEW,
    });
    app.post(&app.ours.owner, "/api/v1/auth/register/user", register).await.expect(201);
    let verification = token(&smtp.mail(1, "bob@example.org", SOON).await.text);

    let path = format!("/api/v1/auth/invitations/{invitation}");
    Answer::of(app.anonymous(Method::GET, &path)).await.expect(200);
    for _ in 0..2 {
        confirm(&app, &reset).await;
        accept(&app, &invitation).await;
        anyone(&app, "email/verify", json!({ "token": verification })).await;
    }
    all_is_mailed(&app).await;

    let (log, database) = (log.text(), database(&app).await);
    assert!(log.contains("/api/v1/auth/invitations/{token} 200"), "the log is one");
    assert!(database.contains("links.mail_reset"), "the dump is one");
    for secret in [reset, invitation, verification, NEW.to_owned()] {
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        for form in [secret.as_str(), &hex] {
            assert!(!database.contains(form), "{form} lies in the database");
            assert!(!log.contains(form), "{form} lies in the log");
        }
    }
    assert_eq!(app.count("select count(*) from mailed_links where used_at is not null").await, 3);
}

#[tokio::test]
async fn an_address_that_was_somebodys_is_told_of_the_change() {
    let (app, smtp) = app().await;
    let who = &app.ours.user;
    let change = async |email: &str| {
        let path = format!("/api/v1/auth/users/{}", who.id);
        let request = app.request(&app.ours.owner, Method::PATCH, &path).json(&json!({ "email": email }));
        Answer::of(request).await.expect(200);
        all_is_mailed(&app).await;
    };
    // Nobody has shown that the first one is theirs: it may be a stranger's.
    change("typo@example.org").await;
    smtp.mail(1, "typo@example.org", SOON).await;
    assert_eq!(app.count("select count(*) from jobs where kind = 'links.mail_moved'").await, 0);
    app.execute(&format!("update users set email_verified_at = now() where id = '{}'", who.id)).await;
    change("new@example.org").await;
    assert!(smtp.mail(1, "new@example.org", SOON).await.text.contains("verify-email#token="));
    let told = smtp.mail(2, "typo@example.org", SOON).await;
    assert!(told.text.contains("another e-mail address") && told.text.contains("\"Ours\""), "{}", told.text);
    assert!(!told.text.contains("new@example.org") && tokens(&told.text).is_empty(), "{}", told.text);
    // In other letters it is the same one.
    change("NEW@example.org").await;
    assert_eq!(app.count("select count(*) from jobs where kind = 'links.mail_moved'").await, 1);
}

#[tokio::test]
async fn a_link_dies_when_its_person_is_disabled() {
    let (app, smtp) = app().await;
    let who = &app.ours.user;
    app.set_password(who).await;
    ask(&app, &who.email, Some(&who.slug)).await;
    let link = token(&smtp.mail(1, &who.email, SOON).await.text);
    let path = format!("/api/v1/auth/users/{}", who.id);
    for active in [false, true] {
        let request = app.request(&app.ours.owner, Method::PATCH, &path).json(&json!({ "active": active }));
        Answer::of(request).await.expect(200);
        confirm(&app, &link).await.problem(410, "gone");
    }
    log_in(&app, who, PASSWORD).await.expect(200);
    // Whoever is to be deleted, and is let in again, has none either.
    ask(&app, &who.email, Some(&who.slug)).await;
    let link = token(&smtp.mail(2, &who.email, SOON).await.text);
    let request = app.request(&app.ours.owner, Method::DELETE, &format!("{path}?purge=true"));
    Answer::of(request).await.expect(202);
    confirm(&app, &link).await;
    assert_eq!(app.count("select count(*) from mailed_links where used_at is null").await, 0);
}

/// Whoever reads the mailbox has asked for it, and its owner has seen that.
#[tokio::test]
async fn another_password_ends_a_link_for_one() {
    let (app, smtp) = app().await;
    let who = &app.ours.user;
    app.set_password(who).await;
    ask(&app, &who.email, Some(&who.slug)).await;
    let link = token(&smtp.mail(1, &who.email, SOON).await.text);
    let signed_in = log_in(&app, who, PASSWORD).await.expect(200).json();
    let body = json!({ "currentPassword": PASSWORD, "password": NEW, "passwordConfirmation": NEW });
    let change = app.anonymous(Method::POST, "/api/v1/auth/change-password").json(&body);
    Answer::of(change.bearer_auth(signed_in["accessToken"].as_str().unwrap())).await.expect(204);
    confirm(&app, &link).await.problem(410, "gone");
    log_in(&app, who, NEW).await.expect(200);
}
