//! Whatever text somebody sends, wherever: it is taken or refused, and never breaks anything.

mod places;

use std::collections::BTreeMap;

use futures::StreamExt;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use streamspace_common::{Config, config::Registration};

use self::places::Schemas;
use crate::{
    access::{Operation, Ours, operations, ours, schedule},
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

/// Not called here: it would end by which the others are called.
const ENDS_THE_CALLER: [&str; 1] = ["/api/v1/auth/logout"];

/// Strangers' guesses are none that anybody counts here.
fn patient() -> Config {
    let mut config = cheap();
    config.tenants.registration = Registration::Open;
    config.auth.lockout_failures = 1_000_000;
    config
}

/// An owner who comes with a key and with a token, and whatever is sent in their name.
struct Sender {
    app: App,
    ours: Ours,
    token: String,
    sent: BTreeMap<String, Vec<u16>>,
}

impl Sender {
    async fn ready() -> Self {
        let app = App::start_with(patient()).await;
        let owner = &app.ours.owner;
        app.set_password(owner).await;
        let body = json!({ "email": owner.email, "password": PASSWORD, "tenant": owner.slug });
        let token = login(&app, body).await.expect(200).json()["accessToken"].as_str().unwrap().to_owned();
        // What is done to somebody is not done to whoever does it.
        let ours = Ours { owner: app.ours.user.id.to_string(), ..ours(&app).await };
        Self { app, ours, token, sent: BTreeMap::new() }
    }

    fn by_key(&self, method: &Method, path: &str) -> RequestBuilder {
        self.app.request(&self.app.ours.owner, method.clone(), path)
    }

    fn by_token(&self, method: &Method, path: &str) -> RequestBuilder {
        self.app.anonymous(method.clone(), path).bearer_auth(&self.token)
    }

    /// Some at once: they are many.
    async fn send(&mut self, requests: Vec<(String, RequestBuilder)>) {
        let answers: Vec<_> = futures::stream::iter(requests)
            .map(async |(what, request)| {
                let response = request.send().await.unwrap_or_else(|error| panic!("{what:.400}: {error}"));
                (what, Answer::read(response).await)
            })
            .buffered(8)
            .collect()
            .await;
        for (what, answer) in answers {
            check(&what, &answer);
            let operation = what.split(':').next().unwrap().to_owned();
            self.sent.entry(operation).or_default().push(answer.status);
        }
    }

    /// Nobody was thrown out, and something was taken, as far as anything can be.
    async fn is_still_there(&self) {
        let own = self.by_token(&Method::GET, "/api/v1/auth/profile");
        assert_eq!(Answer::of(own).await.expect(200).json()["email"], self.app.ours.owner.email);
        self.app.get(&self.app.ours.owner, "/api/v1/jobs").await.expect(200);
    }
}

/// Whatever is refused is refused as a problem, and nothing tells what lies beneath.
fn check(what: &str, answer: &Answer) {
    assert!(answer.status < 500, "{what:.400}: {}", answer.text);
    // What is taken may hold a secret, and that any letters.
    if answer.status < 400 {
        return;
    }
    // A body that no server reads to its end.
    if answer.status != 413 {
        assert_eq!(answer.header("content-type"), "application/problem+json", "{what:.400}");
        assert_eq!(answer.json()["status"], answer.status, "{what:.400}");
    }
    for beneath in ["syntax error", "sqlx", "sqlstate", "invalid byte sequence", "violates", "pg_", "::uuid"]
    {
        assert!(!answer.text.to_lowercase().contains(beneath), "{what:.400}: {}", answer.text);
    }
}

/// With names and addresses that nobody has yet, so that what is sent gets as far as it can.
fn anew(value: &mut Value, n: usize) {
    match value {
        Value::String(text) if text.eq_ignore_ascii_case("walked") => *text = format!("{text}-{n}"),
        Value::String(text) if text.ends_with("@example.org") => *text = format!("{n}.{text}"),
        Value::Array(items) => items.iter_mut().for_each(|item| anew(item, n)),
        Value::Object(fields) => fields.values_mut().for_each(|field| anew(field, n)),
        _ => {}
    }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// In place of what it was.
fn with_query(path: &str, name: &str, text: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let others = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with(&format!("{name}=")));
    let pairs: Vec<_> = others.map(str::to_owned).chain([format!("{name}={text}")]).collect();
    format!("{path}?{}", pairs.join("&"))
}

fn called() -> impl Iterator<Item = Operation> {
    operations().into_iter().filter(|operation| !ENDS_THE_CALLER.contains(&operation.path.as_str()))
}

/// Every field of every body that the document describes, also of those that nobody here has heard of.
#[tokio::test]
async fn no_string_in_a_body_breaks_anything() {
    let schemas = Schemas::of(&streamspace_api::openapi_json());
    let mut sender = Sender::ready().await;
    let long = "x".repeat(100_000);
    let (mut n, mut fields) = (0, 0);
    for operation in called() {
        let schema = &operation.document["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        let (path, places) = (operation.path(&sender.ours), schemas.places(schema));
        assert!(!places.is_empty() || operation.path.ends_with("/rotate"), "{}", operation.path);
        fields += places.len();
        let mut requests = Vec::new();
        for text in STRINGS.into_iter().chain([long.as_str()]) {
            let mut bodies = Vec::new();
            for place in &places {
                let mut body = operation.body().unwrap_or_else(|| json!({}));
                n += 1;
                anew(&mut body, n);
                schemas.put(&mut body, schema, place, text);
                bodies.push((format!("{place:?}"), body));
            }
            // A field of this name.
            let mut body = operation.body().unwrap_or_else(|| json!({}));
            body[text] = text.into();
            bodies.push(("a name".to_owned(), body));
            for (place, body) in bodies {
                let what = format!("{} {}: {place} {text:.100}", operation.method, operation.path);
                for request in
                    [sender.by_key(&operation.method, &path), sender.by_token(&operation.method, &path)]
                {
                    requests.push((what.clone(), request.json(&body)));
                }
            }
        }
        sender.send(requests).await;
    }
    println!("figure: {fields} fields of bodies, {n} bodies");
    assert!(fields > 90, "{fields}");
    // What makes something has made it from some of them.
    for makes in
        ["teams", "api-keys", "schedules", "auth/register/user", "auth/register/tenant", "auth/invitations"]
    {
        let statuses = &sender.sent[&format!("POST /api/v1/{makes}")];
        assert!(statuses.contains(&201) && statuses.contains(&422), "{makes}: {statuses:?}");
    }
    sender.is_still_there().await;
}

/// Every parameter of every address and query that the document describes.
#[tokio::test]
async fn no_string_in_an_address_breaks_anything() {
    let schemas = Schemas::of(&streamspace_api::openapi_json());
    let mut sender = Sender::ready().await;
    let mut parameters = 0;
    for operation in called() {
        let mut requests = Vec::new();
        for text in STRINGS {
            let text = encoded(text);
            let described =
                operation.document["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
            let mut paths = Vec::new();
            for parameter in described.iter().map(|parameter| schemas.resolve(parameter)) {
                let name = parameter["name"].as_str().unwrap();
                if !schemas.is_text(&parameter["schema"]) {
                    continue;
                }
                match parameter["in"].as_str().unwrap() {
                    "query" => paths.push(with_query(&operation.path(&sender.ours), name, &text)),
                    "path" => {
                        let with = Operation {
                            path: operation.path.replace(&format!("{{{name}}}"), &text),
                            method: operation.method.clone(),
                            document: Value::Null,
                        };
                        paths.push(with.path(&sender.ours));
                    }
                    _ => {}
                }
            }
            parameters += paths.len();
            // One that nobody knows.
            paths.push(format!("{}?{text}={text}", operation.path(&sender.ours).split('?').next().unwrap()));
            for path in paths {
                let what = format!("{} {}: {path}", operation.method, operation.path);
                for request in
                    [sender.by_key(&operation.method, &path), sender.by_token(&operation.method, &path)]
                {
                    let body = operation.body();
                    requests.push((
                        what.clone(),
                        match body {
                            Some(body) => request.json(&body),
                            None => request,
                        },
                    ));
                }
            }
        }
        sender.send(requests).await;
    }
    println!("figure: {} parameters", parameters / STRINGS.len());
    assert!(parameters / STRINGS.len() > 80, "{parameters}");
    sender.is_still_there().await;
    for text in STRINGS.map(encoded) {
        for path in [
            format!("/{text}"),
            format!("/api/v1/auth/oidc/acme/login?returnTo={text}&link={text}"),
            format!("/api/v1/auth/oidc/acme/callback?state={text}&code={text}&iss={text}&error={text}"),
        ] {
            check(&path, &sender.app.get(&sender.app.ours.owner, &path).await);
        }
    }
    // Not UTF-8.
    sender.app.get(&sender.app.ours.owner, "/api/v1/queues/%FF").await.problem(400, "malformed");
}

/// What the document can't tell: what else an operation reads in a value of any kind.
#[tokio::test]
async fn no_string_within_what_is_free_breaks_anything() {
    let sender = Sender::ready().await;
    for text in STRINGS {
        let arguments = [
            json!(text),
            json!({ "change": text }),
            json!({ "change": "retry", "filter": { "kind": text } }),
        ];
        let mut requests = vec![
            (Method::PUT, "/api/v1/settings/auth.mfa_required", json!({ "value": text })),
            (Method::PUT, "/api/v1/settings/ui.announcement", json!({ "value": text })),
            (Method::PUT, "/api/v1/auth/tenant/profile", json!({ "metadata": { text: { text: text } } })),
        ];
        for arguments in arguments {
            let mut body = schedule("arguments");
            body["arguments"] = arguments;
            requests.push((Method::POST, "/api/v1/schedules", body));
        }
        for (method, path, body) in requests {
            let answer = Answer::of(sender.by_key(&method, path).json(&body)).await;
            check(&format!("{method} {path} {body}"), &answer);
        }
    }
    sender.is_still_there().await;
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
