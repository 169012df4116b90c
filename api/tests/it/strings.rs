//! Whatever text somebody sends, wherever: it is taken or refused, and never breaks anything.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::{identity_provider, schedule},
    app::{Answer, App},
};

const STRINGS: [&str; 12] = [
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

#[tokio::test]
async fn no_string_in_a_body_breaks_anything() {
    let app = App::start().await;
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
    let app = App::start().await;
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
    let app = App::start().await;
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
