//! Every secret that was made is looked for wherever it must not be: the whole database, the log, the
//! audit, stored answers.

use std::{
    io::{self, Write},
    sync::{Arc, LazyLock, Mutex},
};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Row;

use crate::{
    app::{Answer, App, PASSWORD},
    sign_in::{cheap, login},
};

/// Everything that this process logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .try_init()
        .expect("nobody else logs in this process");
    log
});

/// All rows as text: what a dump holds.
async fn database(app: &App) -> String {
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
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let mut secrets = vec![PASSWORD.to_owned(), "another password".to_owned(), "a wrong password".to_owned()];

    let body = |password: &str| json!({ "email": who.email, "password": password, "tenant": who.slug });
    login(&app, body("a wrong password")).await.expect(401);
    let first = login(&app, body(PASSWORD)).await.expect(200).json();
    let refresh = json!({ "refreshToken": first["refreshToken"] });
    let second = Answer::of(app.anonymous(Method::POST, "/api/v1/auth/refresh").json(&refresh))
        .await
        .expect(200)
        .json();
    for signed_in in [&first, &second] {
        secrets.extend([text(signed_in, "accessToken"), text(signed_in, "refreshToken")]);
    }
    let token = text(&second, "accessToken");
    let send = async |method: Method, path: &str, body: Value| {
        let request = app.anonymous(method, path).bearer_auth(&token).header("idempotency-key", "once");
        Answer::of(request.json(&body)).await
    };
    let key = send(Method::POST, "/api/v1/api-keys", json!({ "name": "made" })).await.expect(201).json();
    let rotated = format!("/api/v1/api-keys/{}/rotate", text(&key, "id"));
    secrets.push(text(&key, "key"));
    secrets.push(text(&send(Method::POST, &rotated, json!({})).await.expect(200).json(), "key"));
    let ticket = send(Method::POST, "/api/v1/streams/ticket", json!({ "path": "/api/v1/ws/jobs" }))
        .await
        .expect(201)
        .json();
    secrets.push(text(&ticket, "ticket"));
    let _ = Answer::of(
        app.anonymous(Method::GET, &format!("/api/v1/ws/jobs?ticket={}", text(&ticket, "ticket"))),
    )
    .await;
    let enrolled = send(Method::POST, "/api/v1/auth/mfa/enroll", json!({})).await.expect(200).json();
    secrets.extend([text(&enrolled, "secret"), text(&enrolled, "otpauthUri")]);
    let origin = format!("http://{}", app.address);
    let browser =
        app.anonymous(Method::POST, "/api/v1/auth/login").header("origin", origin).json(&body(PASSWORD));
    let cookie = Answer::of(browser).await.expect(200).header("set-cookie").to_owned();
    let cookie = cookie.split(['=', ';']).nth(1).unwrap().to_owned();
    let _ = Answer::of(
        app.anonymous(Method::GET, "/api/v1/auth/profile")
            .header("cookie", format!("__Host-streamspace={cookie}")),
    )
    .await
    .expect(200);
    secrets.push(cookie);
    let change = json!({
        "currentPassword": PASSWORD, "password": "another password", "passwordConfirmation": "another password",
    });
    send(Method::POST, "/api/v1/auth/change-password", change).await.expect(204);

    let database = database(&app).await;
    assert!(database.contains(&who.email) && database.contains("sign_ins.create"), "the dump is one");
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("/api/v1/auth/login"), "the log is one");
    for secret in &secrets {
        assert!(secret.len() >= 8, "{secret}");
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        for form in [secret.as_str(), &hex] {
            assert!(!database.contains(form), "{form} lies in the database");
            assert!(!log.contains(form), "{form} lies in the log");
        }
    }
}
