//! Every secret that was made is looked for wherever it must not be: the whole database, the log, the
//! audit, stored answers.

use std::{
    io::{self, Write},
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Row;
use streamspace_common::config::Registration;
use streamspace_testkit::{Smtp, SmtpOptions};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    app::{Answer, App, PASSWORD},
    cli_sign_in::{self, Browser, PROGRAM, VERIFIER, authorize, exchange, shown},
    links, mfa, registration,
    sign_in::login,
};

/// Everything that this process logs.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let writer = log.clone();
    // Of others what they tell users: tests beside this one send megabytes.
    let levels =
        Targets::new().with_target("streamspace", LevelFilter::TRACE).with_default(LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    tracing_subscriber::registry()
        .with(levels)
        .with(lines)
        .try_init()
        .expect("nobody else logs in this process");
    log
});

/// All rows as text: what a dump holds.
pub async fn database(app: &App) -> String {
    let pool = app.queue.db().pool();
    let tables = sqlx::query("select c.oid::regclass::text from pg_class c where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace")
        .fetch_all(pool)
        .await
        .unwrap();
    let mut all = String::new();
    for table in tables {
        let table: String = table.get(0);
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("select t::text from {table} t")))
            .fetch_all(pool)
            .await
            .unwrap();
        for row in rows {
            all.push_str(&row.get::<String, _>(0));
            all.push('\n');
        }
    }
    all
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

#[tokio::test]
async fn no_secret_lies_anywhere() {
    let log = LOG.clone();
    let smtp = Smtp::start(SmtpOptions::default()).await.unwrap();
    let app = registration::with(Registration::Invite).await;
    app.mails_to(&smtp);
    let who = &app.ours.user;
    app.set_password(who).await;
    let mut secrets = vec![PASSWORD.to_owned(), "another password".to_owned(), "a wrong password".to_owned()];
    let body = |password: &str| json!({ "email": who.email, "password": password, "tenant": who.slug });
    login(&app, body("a wrong password")).await.expect(401);
    let first = login(&app, body(PASSWORD)).await.expect(200).json();
    let refresh = json!({ "refreshToken": first["refreshToken"] });
    let second = anyone(&app, "refresh", refresh).await.expect(200).json();
    secrets.extend([tokens(&first), tokens(&second)].concat());
    let token = text(&second, "accessToken");
    secrets.extend(of_keys_and_tickets(&app, &token).await);
    secrets.extend(of_a_browser_and_a_program(&app).await);
    secrets.extend(of_invitations(&app, &smtp).await);
    secrets.extend(of_a_second_factor(&app, &token).await);
    let change = json!({
        "currentPassword": PASSWORD, "password": "another password", "passwordConfirmation": "another password",
    });
    send(&app, &token, Method::POST, "/api/v1/auth/change-password", change).await.expect(204);

    // Of each form one at least: that they are made is half of the proof.
    for form in ["rt_", "sk_", "st_", "ss_", "cy_", "cc_", "ml_", "ti_", "sc_", "eyJ"] {
        assert!(secrets.iter().any(|secret| secret.starts_with(form)), "{form} is among {secrets:?}");
    }
    assert_unseen(&app, &log, &secrets).await;
}

async fn anyone(app: &App, path: &str, body: Value) -> Answer {
    Answer::of(app.anonymous(Method::POST, &format!("/api/v1/auth/{path}")).json(&body)).await
}

/// Under a key whose answer is stored.
async fn send(app: &App, token: &str, method: Method, path: &str, body: Value) -> Answer {
    let request = app.anonymous(method, path).bearer_auth(token).header("idempotency-key", "once");
    Answer::of(request.json(&body)).await
}

fn tokens(signed_in: &Value) -> Vec<String> {
    ["accessToken", "refreshToken"].map(|name| text(signed_in, name)).to_vec()
}

async fn of_keys_and_tickets(app: &App, token: &str) -> Vec<String> {
    let send = async |path: &str, body: Value| send(app, token, Method::POST, path, body).await;
    let key = send("/api/v1/api-keys", json!({ "name": "made" })).await.expect(201).json();
    let rotated = format!("/api/v1/api-keys/{}/rotate", text(&key, "id"));
    let rotated = send(&rotated, json!({})).await.expect(200).json();
    // Whoever comes with one that is over is told of.
    let revoke = format!("/api/v1/api-keys/{}/revoke", text(&key, "id"));
    send(&revoke, json!({})).await.expect(200);
    let come = app.anonymous(Method::GET, "/api/v1/jobs").header("x-api-key", text(&rotated, "key"));
    Answer::of(come).await.expect(401);
    let ticket =
        send("/api/v1/streams/ticket", json!({ "path": "/api/v1/ws/jobs" })).await.expect(201).json();
    let ticket = text(&ticket, "ticket");
    for _ in 0..2 {
        let _ = Answer::of(app.anonymous(Method::GET, &format!("/api/v1/ws/jobs?ticket={ticket}"))).await;
    }
    let unused = json!({ "path": "/api/v1/jobs/0192/events" });
    let request = app.anonymous(Method::POST, "/api/v1/streams/ticket").bearer_auth(token).json(&unused);
    let unused = text(&Answer::of(request).await.expect(201).json(), "ticket");
    vec![text(&key, "key"), text(&rotated, "key"), ticket, unused]
}

/// The cookie; the yes and the code of a program that was let in, and of one that never came for it.
async fn of_a_browser_and_a_program(app: &App) -> Vec<String> {
    let browser = Browser::of(app, &app.ours.user).await;
    let mut secrets = vec![browser.cookie.split_once('=').unwrap().1.to_owned(), VERIFIER.to_owned()];
    for comes in [true, false] {
        let asked = browser.is_asked(&authorize(PROGRAM)).await;
        let yes = asked.split(['=', '&']).find(|part| part.starts_with("cy_")).unwrap().to_owned();
        let code = cli_sign_in::code(&browser.goes_to(&asked).await);
        if comes {
            secrets.extend(tokens(&exchange(app, &shown(&code)).await.expect(200).json()));
            exchange(app, &shown(&code)).await.expect(401);
        }
        secrets.extend([yes, code]);
    }
    secrets
}

/// To people by mail, and to tenants by whoever runs the installation.
async fn of_invitations(app: &App, smtp: &Smtp) -> Vec<String> {
    let mut secrets = Vec::new();
    for (n, accepts) in [(1, true), (2, false)] {
        let email = format!("ada{n}@example.org");
        let body = json!({ "email": email, "role": "user" });
        app.post(&app.ours.owner, "/api/v1/auth/invitations", body).await.expect(201);
        let link = links::token(&smtp.mail(1, &email, Duration::from_secs(20)).await.text);
        Answer::of(app.anonymous(Method::GET, &format!("/api/v1/auth/invitations/{link}"))).await.expect(200);
        if accepts {
            let body = json!({ "password": "chosen by Ada", "passwordConfirmation": "chosen by Ada" });
            let path = format!("invitations/{link}/accept");
            secrets.extend(tokens(&anyone(app, &path, body).await.expect(200).json()));
        }
        secrets.push(link);
    }
    secrets.push("chosen by Ada".to_owned());
    for (n, registers) in [(1, true), (2, false)] {
        let invitation = registration::invite(app, None, None).await;
        if registers {
            let email = format!("bob{n}@example.org");
            let made = anyone(
                app,
                "register/tenant",
                json!({
                    "tenantName": "Bob's", "contactEmail": email, "email": email, "name": "Bob",
                    "password": "chosen by Bob", "passwordConfirmation": "chosen by Bob",
                    "invitation": invitation,
                }),
            );
            let made = made.await.expect(201).json();
            secrets.extend([tokens(&made), vec![text(&made["apiKey"], "key")]].concat());
        }
        secrets.push(invitation);
    }
    secrets.push("chosen by Bob".to_owned());
    secrets
}

/// Its secret, the codes on paper, and the challenges of those who come with one, with none, and never.
async fn of_a_second_factor(app: &App, token: &str) -> Vec<String> {
    let who = &app.ours.user;
    let send = async |path: &str, body: Value| {
        send(app, token, Method::POST, &format!("/api/v1/auth/mfa/{path}"), body).await
    };
    let enrolled = send("enroll", json!({})).await.expect(200).json();
    let secret = text(&enrolled, "secret");
    let code = json!({ "code": mfa::code(&secret, 0) });
    let enabled = send("verify", code).await.expect(200).json();
    let recovery: Vec<_> = enabled["recoveryCodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|code| code.as_str().unwrap().to_owned())
        .collect();
    let mut secrets = vec![secret, text(&enrolled, "otpauthUri"), text(&enrolled, "qrCode")];
    for shown in [Some(recovery[0].as_str()), Some("AAAAA-AAAAA"), None] {
        let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug });
        let challenge = text(&login(app, body).await.expect(200).json(), "challenge");
        if let Some(shown) = shown {
            let body = json!({ "challenge": challenge, "recoveryCode": shown });
            let answer = anyone(app, "login/mfa", body).await;
            if shown == recovery[0] {
                secrets.extend(tokens(&answer.expect(200).json()));
            }
        }
        secrets.push(challenge);
    }
    // As somebody types them, too.
    secrets
        .extend(recovery.iter().flat_map(|code| [code.clone(), code.to_lowercase(), code.replace('-', "")]));
    secrets
}

/// None of these lies in the database, as text or as bytes, or was logged.
pub async fn assert_unseen(app: &App, log: &Log, secrets: &[String]) {
    let database = database(app).await;
    assert!(
        database.contains(&app.ours.user.email) && database.contains("sign_ins.create"),
        "the dump is one"
    );
    let log = log.text();
    assert!(log.contains("/api/v1/auth/"), "the log is one");
    for secret in secrets {
        assert!(secret.len() >= 8, "{secret}");
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        for form in [secret.as_str(), &hex] {
            assert!(!database.contains(form), "{form} lies in the database");
            assert!(!log.contains(form), "{form} lies in the log");
        }
    }
}
