//! Whatever text somebody sends, wherever: it is taken or refused, and never breaks anything.

use reqwest::Method;
use serde_json::{Value, json};
use streamspace_common::config::Registration;

use crate::{
    access::{identity_provider, schedule},
    app::{Answer, App, PASSWORD},
    sign_in::{cheap, login},
};

pub const STRINGS: [&str; 12] = [
    "'; drop table jobs; --",
    "\" or 1=1",
    "$1 %s {} ${x} \\",
    "\u{0}",
    "a\u{0}b",
    "\u{feff}\u{202e}\u{1f600}",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "\r\nSet-Cookie: a=b",
    "NaN",
    " ",
    "",
];

/// Requests with a text in each of their fields.
fn requests(text: &str) -> Vec<(Method, &'static str, Value)> {
    let mut requests = Vec::new();
    let fields =
        ["name", "kind", "cron", "timeZone", "jitter", "catchUp", "catchUpWindow", "overlap", "paused", text];
    for field in fields {
        let mut body = schedule("fine");
        body[field] = text.into();
        requests.push((Method::POST, "/api/v1/schedules", body));
    }
    for arguments in
        [json!(text), json!({ "change": text }), json!({ "change": "retry", "filter": { "kind": text } })]
    {
        let mut body = schedule("arguments");
        body["arguments"] = arguments;
        requests.push((Method::POST, "/api/v1/schedules", body));
    }
    for field in ["states", "kind", "queue", "parent", "schedule", "user", "createdFrom"] {
        requests.push((Method::POST, "/api/v1/jobs/retry", json!({ field: text })));
        requests.push((Method::POST, "/api/v1/jobs/cancel", json!({ field: [text] })));
    }
    for field in ["name", "description", text] {
        let mut body = json!({ "name": "fine" });
        body[field] = text.into();
        requests.push((Method::POST, "/api/v1/teams", body));
    }
    for field in [
        "name",
        "displayName",
        "providerUrl",
        "clientId",
        "clientSecret",
        "redirectUri",
        "scopes",
        "usernameClaim",
        "emailClaim",
        "groupsClaim",
        "groupMapping",
        "defaultRole",
        text,
    ] {
        for value in [json!(text), json!([text]), json!([{ "group": text, "role": "user" }])] {
            let mut body = identity_provider("fine");
            body[field] = value;
            requests.push((Method::POST, "/api/v1/auth/oidc/providers", body));
        }
    }
    for field in ["email", "tenant", text] {
        let mut body = json!({ "email": "nobody@example.org" });
        body[field] = text.into();
        requests.push((Method::POST, "/api/v1/auth/password-reset/request", body));
    }
    for field in ["email", "name", "username", "role", text] {
        let mut body = json!({ "email": "fine@example.org", "role": "user" });
        body[field] = text.into();
        requests.push((Method::POST, "/api/v1/auth/invitations", body));
    }
    requests.push((Method::POST, "/api/v1/auth/email/verify", json!({ "token": text })));
    requests.push((Method::PUT, "/api/v1/settings/ui.announcement", json!({ "value": text })));
    requests.push((Method::PUT, "/api/v1/settings/auth.mfa_required", json!({ "value": text })));
    requests.push((Method::PATCH, "/api/v1/queues/maintenance", json!({ "rate": text })));
    requests.push((Method::POST, "/api/v1/streams/ticket", json!({ "path": text })));
    requests.push((Method::POST, "/api/v1/schedules/preview", json!({ "cron": text })));
    requests.push((
        Method::POST,
        "/api/v1/schedules/preview",
        json!({ "cron": "* * * * *", "timeZone": text }),
    ));
    requests
}

const PROFILE: &str = "/api/v1/auth/profile";

/// What people do about themselves and each other, with a text in each field. `id` is somebody's.
fn of_people(text: &str, id: &str) -> Vec<(Method, String, Value)> {
    let fine = |fields: &[&str]| {
        let value = |field: &str| match field {
            "email" | "contactEmail" => json!("fine@example.org"),
            "role" => json!("user"),
            "metadata" => json!({}),
            field if field.to_lowercase().contains("password") => json!(PASSWORD),
            _ => json!("fine"),
        };
        fields.iter().map(|field| ((*field).to_owned(), value(field))).collect::<serde_json::Map<_, _>>()
    };
    let user = format!("users/{id}");
    let operations: [(Method, &str, &[&str]); 15] = [
        (Method::POST, "login", &["email", "password", "tenant"]),
        (Method::POST, "refresh", &["refreshToken"]),
        (Method::POST, "login/mfa", &["challenge", "code"]),
        (Method::POST, "login/mfa", &["challenge", "recoveryCode"]),
        (Method::POST, "password-reset/confirm", &["token", "password", "passwordConfirmation"]),
        (Method::POST, "invitations/ml_fine/accept", &["name", "password", "passwordConfirmation"]),
        (Method::POST, "cli/token", &["code", "codeVerifier", "redirectUri"]),
        (
            Method::POST,
            "register/tenant",
            &[
                "tenantName",
                "slug",
                "contactEmail",
                "email",
                "name",
                "password",
                "passwordConfirmation",
                "invitation",
            ],
        ),
        (
            Method::POST,
            "register/user",
            &["email", "name", "username", "role", "password", "passwordConfirmation"],
        ),
        (Method::POST, "change-password", &["currentPassword", "password", "passwordConfirmation"]),
        (Method::POST, "mfa/verify", &["code"]),
        (Method::DELETE, "mfa", &["code"]),
        (Method::PATCH, &user, &["name", "email", "role", "currentPassword"]),
        (Method::PUT, "profile", &["name", "username"]),
        (Method::PUT, "tenant/profile", &["name", "contactEmail", "metadata"]),
    ];
    let mut requests = Vec::new();
    for (method, path, fields) in operations {
        for field in fields.iter().chain([&text]) {
            let mut body = fine(fields);
            body.insert((*field).to_owned(), text.into());
            requests.push((method.clone(), format!("/api/v1/auth/{path}"), Value::Object(body)));
        }
    }
    for field in ["name", "owner", "role", "scopes", "expiresIn", text] {
        requests.push((Method::POST, "/api/v1/api-keys".to_owned(), json!({ "name": "fine", field: text })));
    }
    requests
}

#[tokio::test]
async fn no_string_about_people_breaks_anything() {
    let mut config = cheap();
    config.tenants.registration = Registration::Open;
    let app = App::start_with(config).await;
    let owner = &app.ours.owner;
    let long = "x".repeat(100_000);
    let mut statuses = std::collections::BTreeSet::new();
    for text in STRINGS.into_iter().chain([long.as_str()]) {
        // Whoever is asked for by a string has the account of before.
        app.set_password(owner).await;
        app.execute("update users set failed_logins = 0, locked_until = null").await;
        app.execute("delete from sign_in_failures").await;
        let body = json!({ "email": owner.email, "password": PASSWORD, "tenant": owner.slug });
        let token = login(&app, body).await.expect(200).json()["accessToken"].as_str().unwrap().to_owned();
        for (method, path, body) in of_people(text, &app.ours.user.id.to_string()) {
            let request = app.anonymous(method.clone(), &path).bearer_auth(&token).json(&body);
            let answer = Answer::of(request).await;
            assert!(answer.status < 500, "{method} {path} {body:.200}: {}", answer.text);
            assert!(!answer.text.contains("syntax error"), "{}", answer.text);
            statuses.insert(answer.status);
        }
        let request = app.anonymous(Method::GET, PROFILE).bearer_auth(&token);
        assert_eq!(Answer::of(request).await.expect(200).json()["email"], owner.email);
    }
    assert!(statuses.contains(&201) && statuses.contains(&422), "some were taken: {statuses:?}");
}

#[tokio::test]
async fn no_string_in_a_body_breaks_anything() {
    let app = App::start_with(cheap()).await;
    let long = "x".repeat(100_000);
    for text in STRINGS.into_iter().chain([long.as_str()]) {
        for (method, path, body) in requests(text) {
            let request = app.request(&app.ours.owner, method.clone(), path).json(&body);
            let answer = Answer::of(request).await;
            assert!(answer.status < 500, "{method} {path} {body:.200}: {}", answer.text);
            assert!(!answer.text.contains("syntax error"), "{}", answer.text);
        }
    }
    app.get(&app.ours.owner, "/api/v1/jobs").await.expect(200);
}

#[tokio::test]
async fn no_string_in_an_address_breaks_anything() {
    let app = App::start_with(cheap()).await;
    for text in STRINGS {
        let text: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for path in [
            format!("/api/v1/jobs/{text}"),
            format!("/api/v1/jobs/{text}/events"),
            format!("/api/v1/queues/{text}"),
            format!("/api/v1/workers/{text}"),
            format!("/api/v1/schedules/{text}/fires"),
            format!("/api/v1/teams/{text}/members"),
            format!("/api/v1/teams?q={text}"),
            format!("/api/v1/settings/{text}"),
            format!("/api/v1/auth/oidc/{text}/login"),
            format!("/api/v1/auth/oidc/{text}/callback"),
            format!("/api/v1/auth/oidc/acme/login?returnTo={text}&link={text}"),
            format!("/api/v1/auth/oidc/acme/callback?state={text}&code={text}&iss={text}&error={text}"),
            format!("/api/v1/auth/oidc/providers?tenant={text}"),
            format!("/api/v1/settings?category={text}"),
            format!("/api/v1/jobs?kind={text}&queue={text}"),
            format!("/api/v1/jobs?cursor={text}"),
            format!("/api/v1/jobs?{text}={text}"),
            format!("/api/v1/ws/jobs?kind={text}"),
            format!("/{text}"),
        ] {
            let answer = app.get(&app.ours.owner, &path).await;
            assert!(answer.status < 500, "{path}: {}", answer.text);
            if answer.status >= 400 {
                assert_eq!(answer.json()["status"], answer.status, "{path}");
            }
        }
        let paused = app.post(&app.ours.owner, &format!("/api/v1/queues/{text}/pause"), json!({})).await;
        assert!(paused.status < 500, "{}", paused.text);
    }
    // Not UTF-8.
    app.get(&app.ours.owner, "/api/v1/queues/%FF").await.problem(400, "malformed");
}

#[tokio::test]
async fn no_string_in_a_header_breaks_anything() {
    let app = App::start_with(cheap()).await;
    for text in ["'; drop table jobs; --", "x\u{e4}", "00-zz-zz-zz", " ", &"y".repeat(5000)] {
        for header in ["x-request-id", "traceparent", "idempotency-key", "last-event-id", "content-type"] {
            let value = http::HeaderValue::from_bytes(text.as_bytes()).unwrap();
            let request =
                app.request(&app.ours.owner, Method::POST, "/api/v1/jobs/retry").header(header, value);
            let answer = Answer::of(request.json(&json!({ "kind": "no.such" }))).await;
            assert!(answer.status < 500, "{header}: {text:.30}: {}", answer.text);
        }
    }
}
