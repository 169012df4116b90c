//! What surrounds every request: ids, headers, limits, refusals that a framework would word.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use streamspace_common::{Config, config::ServerConfig};
use streamspace_testkit::eventually;

use crate::app::{Answer, App, any_id};

#[tokio::test]
async fn a_request_has_an_id_and_its_jobs_carry_it() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let made = app.get(owner, "/api/v1/jobs").await.expect(200);
    assert!(made.header("x-request-id").parse::<uuid::Uuid>().is_ok());
    let sane = app.request(owner, Method::GET, "/api/v1/nowhere").header("x-request-id", "mine:1");
    let answer = Answer::of(sane).await.problem(404, "not-found");
    assert_eq!(answer.header("x-request-id"), "mine:1");
    assert_eq!(answer.json()["requestId"], "mine:1");
    assert_eq!(answer.json()["instance"], "/api/v1/nowhere");
    let odd = app.request(owner, Method::GET, "/api/v1/jobs").header("x-request-id", "a b\"c");
    assert_ne!(Answer::of(odd).await.header("x-request-id"), "a b\"c");

    let made = app.post(owner, "/api/v1/schedules", crate::access::schedule("traced")).await.expect(201);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let run = app
        .request(owner, Method::POST, &format!("{}/run", made.header("location")))
        .header("x-request-id", "mine:2")
        .header("traceparent", trace);
    let run = Answer::of(run).await.expect(202);
    assert_eq!(run.header("retry-after"), "1");
    let job = app.get(owner, run.header("location")).await.expect(200).json();
    assert_eq!((&job["requestId"], &job["traceparent"]), (&json!("mine:2"), &json!(trace)));
}

#[tokio::test]
async fn every_answer_is_dressed() {
    let app = App::start().await;
    for path in ["/", "/health", "/api/docs/", "/api/v1/jobs", "/nowhere"] {
        let answer = Answer::of(app.anonymous(Method::GET, path)).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert!(!answer.header("x-request-id").is_empty(), "{path}");
    }
    let root = Answer::of(app.anonymous(Method::GET, "/").header("accept", "text/html")).await.json();
    assert_eq!((&root["name"], &root["links"]["docs"]), (&json!("StreamSpace"), &json!("/api/docs")));
    let health = Answer::of(app.anonymous(Method::GET, "/health")).await.expect(200).json();
    assert_eq!(health["status"], "healthy");
    assert!(health["checks"]["database"]["latencyMs"].is_number());
}

#[tokio::test]
async fn refusals_are_problems() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    app.get(owner, "/api/v1/nowhere").await.problem(404, "not-found");
    Answer::of(app.request(owner, Method::PUT, "/api/v1/jobs")).await.problem(405, "method-not-allowed");
    app.get(owner, "/api/v1/jobs/not-a-uuid").await.problem(400, "malformed");
    app.get(owner, "/api/v1/jobs/00000000000000000000000000000000").await.problem(400, "malformed");
    app.get(owner, &format!("/api/v1/jobs/{}", any_id())).await.problem(404, "not-found");
    let text = app.request(owner, Method::POST, "/api/v1/schedules").body("name=x");
    Answer::of(text).await.problem(415, "unsupported-media-type");
    let body = |text: String| {
        app.request(owner, Method::POST, "/api/v1/schedules")
            .header("content-type", "application/json")
            .body(text)
    };
    Answer::of(body("{\"name\": ".to_owned())).await.problem(400, "malformed");
    Answer::of(body("[".repeat(100_000))).await.problem(400, "malformed");
    Answer::of(body(format!("\"{}\"", "x".repeat(2 << 20)))).await.problem(413, "too-large");
}

#[tokio::test]
async fn long_answers_and_long_refusals_are_compressed() {
    let app = App::start().await;
    for (path, status) in
        [("/api/openapi.json", 200), (&format!("/api/v1/jobs?state={}", "x".repeat(600)), 422)]
    {
        let request = app.request(&app.ours.owner, Method::GET, path).header("accept-encoding", "gzip");
        let answer = request.send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-encoding"]),
            (status, &"gzip".parse().unwrap())
        );
        assert!(answer.headers().contains_key("x-request-id"), "{path}");
        let body = answer.bytes().await.unwrap();
        assert_eq!(body[..2], [0x1f, 0x8b], "{path} begins as gzip does");
    }
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let wrong = async |change: serde_json::Value| {
        let mut body = crate::access::schedule("fine");
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = app.post(owner, "/api/v1/schedules", body).await.problem(422, "invalid").json();
        answer["errors"][0]["pointer"].as_str().unwrap().to_owned()
    };
    assert_eq!(wrong(json!({ "nmae": "x" })).await, "/nmae");
    assert_eq!(wrong(json!({ "name": 5 })).await, "/name");
    assert_eq!(wrong(json!({ "name": "x".repeat(201) })).await, "/name");
    assert_eq!(wrong(json!({ "cron": "every day" })).await, "/cron");
    assert_eq!(wrong(json!({ "timeZone": "Mars/Olympus" })).await, "/timeZone");
    assert_eq!(wrong(json!({ "catchUp": "maybe" })).await, "/catchUp");
    assert_eq!(wrong(json!({ "jitter": "soon" })).await, "/jitter");
    assert_eq!(wrong(json!({ "kind": "no.such" })).await, "/kind");
    assert_eq!(wrong(json!({ "arguments": { "x": 1 } })).await, "/arguments");
    // A list is no object, though its places could be taken for fields.
    for list in [json!([]), json!(["by position", "no names"])] {
        let answer = app.post(owner, "/api/v1/teams", list).await.problem(422, "invalid").json();
        assert_eq!(answer["errors"][0]["pointer"], "");
    }
    let two = json!({ "name": "", "kind": "", "cron": "* * * * *" });
    let answer = app.post(owner, "/api/v1/schedules", two).await.problem(422, "invalid").json();
    assert_eq!(answer["errors"].as_array().unwrap().len(), 2);
    assert_eq!(app.count("select count(*) from schedules where not built_in").await, 0);
}

#[tokio::test]
async fn a_database_that_hangs_is_waited_for_half_a_minute() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let job = app.job(owner).await;
    let mut lock = app.queue.db().pool().begin().await.unwrap();
    sqlx::query("lock table jobs in access exclusive mode").execute(&mut *lock).await.unwrap();
    let paths = ["", "?wait=1s", "/events"].map(|rest| format!("/api/v1/jobs/{job}{rest}"));
    let start = std::time::Instant::now();
    for answer in join_all(paths.iter().map(|path| app.get(owner, path))).await {
        let answer = answer.problem(503, "timeout");
        assert!(answer.header("ratelimit").starts_with("\"hour\";r="), "{:?}", answer.headers);
    }
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    lock.rollback().await.unwrap();
    eventually(Duration::from_secs(20), "jobs are shown again", async || {
        (app.get(owner, &paths[0]).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_limit_is_told_wherever_a_key_comes() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    for (method, path) in [(Method::GET, "/api/v1/nowhere"), (Method::PUT, "/api/v1/jobs")] {
        let known = Answer::of(app.request(owner, method.clone(), path)).await;
        assert!(known.header("ratelimit").starts_with("\"hour\";r=999"), "{path}: {:?}", known.headers);
        let stranger = Answer::of(app.anonymous(method, path).header("x-api-key", "nobody's")).await;
        assert_eq!((stranger.status, stranger.header("ratelimit")), (known.status, ""), "{path}");
    }
}

#[tokio::test]
async fn a_key_has_its_hour() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let answer = app.get(owner, "/api/v1/jobs").await.expect(200);
    assert_eq!(answer.header("ratelimit-policy"), "\"hour\";q=10000;w=3600");
    assert!(answer.header("ratelimit").starts_with("\"hour\";r=9999;t=3"), "{}", answer.header("ratelimit"));
    app.limit(&app.ours.user, 3).await;
    for _ in 0..3 {
        app.get(&app.ours.user, "/api/v1/jobs").await.expect(200);
    }
    let refused = app.get(&app.ours.user, "/api/v1/jobs").await.problem(429, "rate-limited");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 3500);
    assert!(refused.header("ratelimit").starts_with("\"hour\";r=0;"));
    app.get(owner, "/api/v1/jobs").await.expect(200);
}

#[tokio::test]
async fn the_audit_has_the_address_that_our_own_proxy_tells() {
    let trusted_proxies = Some("127.0.0.0/8, 10.0.0.0/8".parse().unwrap());
    let behind =
        Config { server: ServerConfig { trusted_proxies, ..Default::default() }, ..Default::default() };
    for (config, expected) in [(behind, "203.0.113.9"), (Config::default(), "127.0.0.1")] {
        let app = App::start_with(config).await;
        let create = app
            .request(&app.ours.owner, Method::POST, "/api/v1/schedules")
            .header("x-forwarded-for", "192.0.2.66, 203.0.113.9")
            .header("x-forwarded-for", "10.0.0.1")
            .json(&crate::access::schedule("from-afar"));
        Answer::of(create).await.expect(201);
        let told =
            format!("select count(*) from audit where action = 'schedules.create' and ip = '{expected}'");
        assert_eq!(app.count(&told).await, 1, "{expected}");
    }
}
