//! Keys: who makes which, how they narrow, rotate and end, and what is known of their use.

use std::{collections::BTreeSet, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use streamspace_api::operations::{Access, OPERATIONS};
use streamspace_testkit::eventually;

use crate::app::{Answer, App, Person, any_id, key_of};

const PATH: &str = "/api/v1/api-keys";

fn with(who: &Person, secret: &str) -> Person {
    Person { key: secret.to_owned(), ..who.clone() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

async fn make(app: &App, who: &Person, body: Value) -> Value {
    app.post(who, PATH, body).await.expect(201).json()
}

async fn listed(app: &App, who: &Person, query: &str) -> Vec<String> {
    let page = app.get(who, &format!("{PATH}{query}")).await.expect(200).json();
    page["items"].as_array().unwrap().iter().map(|key| text(&key["name"])).collect()
}

#[tokio::test]
async fn a_key_is_made_used_revoked_and_deleted() {
    let app = App::start().await;
    let user = &app.ours.user;
    let body =
        json!({ "name": "ci", "scopes": ["jobs.read", "api-keys.read"], "expiresIn": "6m", "rateLimit": 50 });
    let answer = app.post(user, PATH, body).await.expect(201);
    let made = answer.json();
    let path = format!("{PATH}/{}", text(&made["id"]));
    assert_eq!(answer.header("location"), path);
    assert_eq!(
        (&made["owner"], &made["rateLimit"], &made["isActive"]),
        (&json!("user"), &json!(50), &json!(true))
    );
    assert_eq!(made["userId"], json!(user.id.to_string()));
    let secret = text(&made["key"]);
    assert!(secret.starts_with(made["prefix"].as_str().unwrap()) && secret.len() == 46);
    let expires: jiff::Timestamp = text(&made["expiresAt"]).parse().unwrap();
    let days = (expires.as_second() - jiff::Timestamp::now().as_second()) / 86_400;
    assert!((179..=184).contains(&days), "{days}");

    let key = with(user, &secret);
    let used = app.get(&key, "/api/v1/jobs").await.expect(200);
    assert!(used.header("ratelimit-policy").contains("q=50"));
    let again = app.get(user, PATH).await.expect(200).text;
    assert!(again.contains("\"ci\"") && !again.contains(&secret), "{again}");

    let revoked = app.post(user, &format!("{path}/revoke"), json!({})).await.expect(200).json();
    assert_eq!(revoked["isActive"], json!(false));
    app.get(&key, "/api/v1/jobs").await.problem(401, "unauthenticated");
    app.post(user, &format!("{path}/revoke"), json!({})).await.expect(200);
    app.post(user, &format!("{path}/rotate"), json!({})).await.problem(409, "conflict");
    assert_eq!(listed(&app, user, "?active=false").await, ["ci"]);
    Answer::of(app.request(user, Method::DELETE, &path)).await.expect(204);
    Answer::of(app.request(user, Method::DELETE, &path)).await.problem(404, "not-found");
    let told = "select count(*) from audit where action in
                ('api_keys.create', 'api_keys.revoke', 'api_keys.delete') and resource_id = ";
    let id = text(&made["id"]);
    assert_eq!(app.count(&format!("{told} '{id}'")).await, 3);
}

#[tokio::test]
async fn wrong_keys_are_refused_field_by_field() {
    let app = App::start().await;
    let pointer = async |who: &Person, body: Value| {
        let problem = app.post(who, PATH, body).await.problem(422, "invalid").json();
        text(&problem["errors"][0]["pointer"])
    };
    let owner = &app.ours.owner;
    for (field, value) in [
        ("name", json!("")),
        ("name", json!("a\u{1}b")),
        ("scopes", json!([])),
        ("scopes", json!(["moon.read"])),
        ("expiresIn", json!("5h")),
        ("expiresIn", json!("11y")),
        ("rateLimit", json!(0)),
        ("rateLimit", json!(-1)),
        ("role", json!("viewer")),
        ("isActive", json!(true)),
        ("userId", json!(app.ours.user.id.to_string())),
    ] {
        let mut body = json!({ "name": "x" });
        body[field] = value;
        assert_eq!(pointer(owner, body.clone()).await, format!("/{field}"), "{body}");
    }
    assert_eq!(pointer(owner, json!({ "name": "x", "owner": "tenant" })).await, "/role");
    assert_eq!(pointer(owner, json!({ "name": "x", "owner": "tenant", "role": "owner" })).await, "/role");
    let made = make(&app, owner, json!({ "name": "x" })).await;
    let rotate = format!("{PATH}/{}/rotate", text(&made["id"]));
    for overlap in ["31d", "-1s", "soon", ""] {
        app.post(owner, &rotate, json!({ "overlap": overlap })).await.problem(422, "invalid");
    }
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_for_a_while() {
    let app = App::start().await;
    let user = &app.ours.user;
    let first = make(&app, user, json!({ "name": "rotated" })).await;
    let rotate = format!("{PATH}/{}/rotate", text(&first["id"]));
    // Without a body: for a day.
    let second = Answer::of(app.request(user, Method::POST, &rotate)).await.expect(200).json();
    let (one, two) = (with(user, &text(&first["key"])), with(user, &text(&second["key"])));
    assert_ne!(one.key, two.key);
    assert_eq!(second["id"], first["id"]);
    let until: jiff::Timestamp = text(&second["previousUntil"]).parse().unwrap();
    let hours = (until.as_second() - jiff::Timestamp::now().as_second()) / 3600;
    assert!((23..=24).contains(&hours), "{hours}");
    for key in [&one, &two] {
        app.get(key, "/api/v1/jobs").await.expect(200);
    }
    // A second rotation ends the first secret, an overlap of none the second.
    let third = app.post(user, &rotate, json!({ "overlap": "1h" })).await.expect(200).json();
    app.get(&one, "/api/v1/jobs").await.expect(401);
    app.get(&two, "/api/v1/jobs").await.expect(200);
    app.execute("update api_keys set previous_until = queue.now() where previous_until is not null").await;
    eventually(Duration::from_secs(5), "the old secret ends by itself", async || {
        (app.get(&two, "/api/v1/jobs").await.status == 401).then_some(())
    })
    .await;
    let fourth = app.post(user, &rotate, json!({ "overlap": "0" })).await.expect(200).json();
    assert_eq!(fourth["previousUntil"], Value::Null);
    app.get(&with(user, &text(&third["key"])), "/api/v1/jobs").await.expect(401);
    app.get(&with(user, &text(&fourth["key"])), "/api/v1/jobs").await.expect(200);
}

#[tokio::test]
async fn a_revoked_key_ends_within_a_second_in_every_process() {
    let app = App::start().await;
    let user = &app.ours.user;
    let made = make(&app, user, json!({ "name": "short" })).await;
    let key = with(user, &text(&made["key"]));
    let elsewhere = format!("http://{}/api/v1/jobs", app.another().await);
    let client = reqwest::Client::new();
    let there = async || client.get(&elsewhere).header("x-api-key", &key.key).send().await.unwrap().status();
    assert_eq!(there().await, 200);
    app.post(user, &format!("{PATH}/{}/revoke", text(&made["id"])), json!({})).await.expect(200);
    app.get(&key, "/api/v1/jobs").await.expect(401);
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert_eq!(there().await, 401);
}

#[tokio::test]
async fn whose_key_it_is_decides_who_keeps_it() {
    let app = App::start().await;
    let (owner, user, operator) = (&app.ours.owner, &app.ours.user, &app.ours.operator);
    let tenants = json!({ "name": "tenant's", "owner": "tenant", "role": "operator" });
    app.post(operator, PATH, tenants.clone()).await.problem(403, "forbidden");
    let of_tenant = make(&app, owner, tenants).await;
    let of_user = make(&app, user, json!({ "name": "user's" })).await;
    assert_eq!(of_tenant["role"], json!("operator"));
    assert!(of_tenant.get("userId").is_none());

    assert!(!listed(&app, user, "").await.contains(&"tenant's".to_owned()));
    assert_eq!(listed(&app, owner, "?owner=tenant").await, ["tenant's"]);
    let user_id = user.id.to_string();
    assert!(listed(&app, owner, &format!("?user={user_id}")).await.contains(&"user's".to_owned()));
    assert!(listed(&app, operator, &format!("?user={user_id}")).await.is_empty());

    // What one may not see does not exist; whoever rotates a key could act as its owner.
    let at = |key: &Value, verb: &str| format!("{PATH}/{}/{verb}", text(&key["id"]));
    for stranger in [user, operator, &app.theirs.owner] {
        for verb in ["revoke", "rotate"] {
            app.post(stranger, &at(&of_tenant, verb), json!({})).await.problem(404, "not-found");
        }
        app.get(stranger, &at(&of_tenant, "usage")).await.problem(404, "not-found");
    }
    app.post(operator, &at(&of_user, "revoke"), json!({})).await.problem(404, "not-found");
    app.post(owner, &at(&of_user, "rotate"), json!({})).await.problem(403, "forbidden");
    app.post(owner, &at(&of_user, "revoke"), json!({})).await.expect(200);

    // Keys of those whom one may not change one does not end.
    let colleague = app.admin(owner).await;
    let of_owner = make(&app, owner, json!({ "name": "owner's" })).await;
    app.post(&colleague, &at(&of_owner, "revoke"), json!({})).await.problem(403, "forbidden");
    let path = format!("{PATH}/{}", text(&of_owner["id"]));
    Answer::of(app.request(&colleague, Method::DELETE, &path)).await.problem(403, "forbidden");
    app.get(&with(owner, &text(&of_owner["key"])), "/api/v1/jobs").await.expect(200);

    // A key of the tenant acts with its role, makes none above it, and is no person.
    let admin = make(&app, owner, json!({ "name": "admin", "owner": "tenant", "role": "admin" })).await;
    let admin = with(owner, &text(&admin["key"]));
    app.post(&admin, PATH, json!({ "name": "mine" })).await.problem(422, "invalid");
    make(&app, &admin, json!({ "name": "child", "owner": "tenant", "role": "viewer" })).await;
    let operators = with(owner, &text(&of_tenant["key"]));
    app.get(&operators, "/api/v1/jobs/stats").await.expect(200);
    app.get(&operators, "/api/v1/audit").await.problem(403, "forbidden");
    assert!(listed(&app, &operators, "").await.is_empty());
    app.post(&operators, PATH, json!({ "name": "x", "owner": "tenant", "role": "viewer" }))
        .await
        .problem(403, "forbidden");
    app.get(owner, &at(&json!({ "id": any_id().to_string() }), "usage")).await.problem(404, "not-found");
}

/// Every operation, with a key that has every scope but the one that it needs.
#[tokio::test]
async fn a_scope_narrows_in_every_area() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let mut needed = BTreeSet::new();
    for operation in OPERATIONS {
        if let Access::Needs { area: Some(area), .. } = operation.access {
            needed.insert((area, operation.method != "GET"));
        }
    }
    assert!(needed.len() >= 6, "{needed:?}");
    for (area, writes) in needed {
        let act = if writes { "write" } else { "read" };
        let missing = format!("{area}.{act}");
        let others: Vec<String> = streamspace_domain::api_keys::AREAS
            .iter()
            .flat_map(|area| [format!("{area}.read"), format!("{area}.write")])
            .filter(|scope| *scope != missing)
            .collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let without = with(owner, &key_of(&app.queue, owner.tenant, owner.id, &others).await);
        let only = with(owner, &key_of(&app.queue, owner.tenant, owner.id, &[&missing]).await);
        for operation in OPERATIONS {
            let Access::Needs { area: Some(its), .. } = operation.access else { continue };
            let path = operation.path.replace("{id}", &any_id().to_string()).replace("{name}", "tests");
            let call = async |who: &Person| {
                Answer::of(app.request(who, operation.method.parse().unwrap(), &path)).await
            };
            let is_it = its == area && (operation.method != "GET") == writes;
            let refused = |answer: &Answer| answer.status == 403 && answer.text.contains("has no scope");
            let name = format!("{} {path} ({missing})", operation.method);
            assert!(refused(&call(if is_it { &without } else { &only }).await), "{name}");
            if is_it {
                assert!(!refused(&call(&only).await), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_narrow_key_makes_no_wider_one() {
    let app = App::start().await;
    let user = &app.ours.user;
    let wide = make(&app, user, json!({ "name": "wide" })).await;
    let scopes = ["api-keys.read", "api-keys.write"];
    let narrow = with(user, &key_of(&app.queue, user.tenant, user.id, &scopes).await);
    app.post(&narrow, PATH, json!({ "name": "x" })).await.problem(403, "forbidden");
    app.post(&narrow, PATH, json!({ "name": "x", "scopes": ["jobs.read"] })).await.problem(403, "forbidden");
    make(&app, &narrow, json!({ "name": "x", "scopes": ["api-keys.read"] })).await;
    let rotate = format!("{PATH}/{}/rotate", text(&wide["id"]));
    app.post(&narrow, &rotate, json!({})).await.problem(403, "forbidden");
}

#[tokio::test]
async fn a_secret_is_not_answered_twice() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let made = make(&app, owner, json!({ "name": "a" })).await;
    let path = format!("{PATH}/{}", text(&made["id"]));
    for (path, body, status, place) in [
        (PATH.to_owned(), json!({ "name": "once" }), 201, PATH),
        (format!("{path}/rotate"), json!({ "overlap": "1h" }), 200, path.as_str()),
    ] {
        let send = || {
            let request = app.request(owner, Method::POST, &path).header("idempotency-key", "k");
            Answer::of(request.json(&body))
        };
        let secret = text(&send().await.expect(status).json()["key"]);
        let again = send().await.problem(409, "already-created");
        assert!(!again.text.contains(&secret));
        assert!(again.text.contains(place) || again.header("location").contains(place), "{}", again.text);
    }
    assert_eq!(app.count("select count(*) from api_keys where name = 'once'").await, 1);
    assert_eq!(app.count("select count(*) from idempotency_keys where body is not null").await, 0);
}

#[tokio::test]
async fn keys_page_by_a_cursor() {
    let app = App::start().await;
    for n in 0..5 {
        make(&app, &app.ours.viewer, json!({ "name": format!("k{n}") })).await;
    }
    let (mut names, mut path) = (Vec::new(), format!("{PATH}?limit=2&owner=user"));
    loop {
        let page = app.get(&app.ours.viewer, &path).await.expect(200).json();
        names.extend(page["items"].as_array().unwrap().iter().map(|key| text(&key["name"])));
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("{PATH}?limit=2&owner=user&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(names, ["k4", "k3", "k2", "k1", "k0", "a test's"]);
}

#[tokio::test]
async fn what_a_key_is_used_for_is_known() {
    let app = App::start().await;
    let user = &app.ours.user;
    let made = make(&app, user, json!({ "name": "busy" })).await;
    let key = with(user, &text(&made["key"]));
    for _ in 0..5 {
        app.get(&key, "/api/v1/jobs").await.expect(200);
    }
    app.get(&key, &format!("/api/v1/jobs/{}", any_id())).await.expect(404);
    app.get(&key, "/api/v1/nowhere-such").await.expect(404);
    let usage = format!("{PATH}/{}/usage", text(&made["id"]));
    let told = eventually(Duration::from_secs(10), "the calls are written", async || {
        let told = app.get(user, &usage).await.expect(200).json();
        (told["days"][0]["calls"] == json!(7)).then_some(told)
    })
    .await;
    assert_eq!(told["days"][0]["errors"], json!(2));
    let calls = told["items"].as_array().unwrap();
    assert_eq!(calls.len(), 7);
    assert_eq!((&calls[0]["route"], &calls[0]["status"]), (&json!("unmatched"), &json!(404)));
    assert_eq!((&calls[1]["route"], &calls[1]["method"]), (&json!("/api/v1/jobs/{id}"), &json!("GET")));
    assert_eq!(calls[2]["address"], json!("127.0.0.1"));
    let page = app.get(user, &format!("{usage}?limit=3")).await.expect(200);
    assert!(page.header("link").contains("rel=\"next\""));
    let cursor = text(&page.json()["nextCursor"]);
    let rest = app.get(user, &format!("{usage}?limit=200&cursor={cursor}")).await.expect(200).json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 4);
    let keys = app.get(user, PATH).await.expect(200).json();
    assert!(keys["items"][0]["lastUsedAt"].is_string(), "{keys}");
    app.get(user, &format!("{usage}?days=0")).await.problem(422, "invalid");

    // A database that refuses keeps nobody from being answered, and gets the calls later.
    app.execute("alter table api_key_calls rename to elsewhere").await;
    for _ in 0..3 {
        app.get(&key, "/api/v1/jobs").await.expect(200);
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    app.execute("alter table elsewhere rename to api_key_calls").await;
    eventually(Duration::from_secs(10), "what was kept is written, once", async || {
        let told = app.get(user, &usage).await.expect(200).json();
        (told["days"][0]["calls"] == json!(10)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_key_is_in_its_tenants_audit_and_a_guess_in_none() {
    let app = App::start().await;
    let user = &app.ours.user;
    let refuse = async |secret: &str, what: &str| {
        let key = with(user, secret);
        eventually(Duration::from_secs(5), what, async || {
            (app.get(&key, "/api/v1/jobs").await.status == 401).then_some(())
        })
        .await;
        // However often somebody comes.
        for _ in 0..5 {
            app.get(&key, "/api/v1/jobs").await.problem(401, "unauthenticated");
        }
    };
    let told = async |reason: &str| {
        app.count(&format!(
            "select count(*) from audit where action = 'api_keys.refuse' and tenant_id = '{}'
                and after ->> 'reason' = '{reason}' and ip = '127.0.0.1' and request_id is not null",
            app.ours.id
        ))
        .await
    };
    let changes = [
        ("it was revoked", "update api_keys set active = false where id = '$'"),
        ("it has expired", "update api_keys set expires_at = now() - interval '1 s' where id = '$'"),
        (
            "it was rotated",
            "update api_keys set previous_hash = secret_hash, previous_until = now() - interval '1 s',
                                 secret_hash = sha256('another') where id = '$'",
        ),
        (
            "its person is disabled",
            "update users set active = false where id = (select user_id from api_keys where id = '$')",
        ),
        (
            "its tenant is suspended",
            "update tenants set active = false where id = (select tenant_id from api_keys where id = '$')",
        ),
    ];
    for (reason, change) in changes {
        app.execute(&format!("update users set active = true where id = '{}'", user.id)).await;
        let made = make(&app, user, json!({ "name": reason })).await;
        app.get(&with(user, &text(&made["key"])), "/api/v1/jobs").await.expect(200);
        app.execute(&change.replace('$', &text(&made["id"]))).await;
        refuse(&text(&made["key"]), reason).await;
        assert_eq!(told(reason).await, 1, "{reason}");
    }
    // Ten minutes later it is told again.
    app.execute(
        "update api_keys set refusal_noted_at = now() - interval '11 minutes' where name = 'it was revoked'",
    )
    .await;
    refuse(&format!("sk_{}", "A".repeat(43)), "a guess").await;
    assert_eq!(app.count("select count(*) from audit where action = 'api_keys.refuse'").await, 5);
}

#[tokio::test]
async fn nobody_lifts_their_own_limit() {
    let app = App::start().await;
    let (user, owner) = (&app.ours.user, &app.ours.owner);
    let limit = |hourly: u32| json!({ "name": "greedy", "rateLimit": hourly });
    let told = app.post(user, PATH, limit(10_001)).await.problem(422, "invalid").json();
    assert_eq!(told["errors"][0]["pointer"], "/rateLimit");
    app.post(user, PATH, limit(10_000)).await.expect(201);
    app.post(owner, PATH, limit(2_000_000)).await.expect(201);
    // Nor by having many, however they are asked for.
    let answers =
        futures::future::join_all((0..120).map(|_| app.post(user, PATH, json!({ "name": "one of many" }))))
            .await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 409).count(), 120 - 98);
    let keys = format!("select count(*) from api_keys where user_id = '{}' and active", user.id);
    assert_eq!(app.count(&keys).await, 100);
    app.execute(&format!(
        "update api_keys set active = false where user_id = '{}' and name = 'greedy'",
        user.id
    ))
    .await;
    app.post(user, PATH, json!({ "name": "another" })).await.expect(201);
}
