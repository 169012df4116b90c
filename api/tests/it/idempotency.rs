//! Requests that are sent again.

use reqwest::Method;
use serde_json::{Value, json};
use streamspace_domain::idempotency::{self, Begin, FinishError, Keep};
use streamspace_queue::Request;

use crate::{
    access::schedule,
    app::{Answer, App, Person, any_id},
};

const PATH: &str = "/api/v1/schedules";

async fn send(app: &App, who: &Person, key: &str, body: Value) -> Answer {
    Answer::of(app.request(who, Method::POST, PATH).header("idempotency-key", key).json(&body)).await
}

async fn made(app: &App) -> i64 {
    app.count("select count(*) from schedules where not built_in").await
}

#[tokio::test]
async fn fifty_equal_requests_have_one_effect() {
    let app = App::start().await;
    let all = (0..50).map(|_| send(&app, &app.ours.owner, "fifty", schedule("once")));
    let answers = futures::future::join_all(all).await;
    assert_eq!(made(&app).await, 1);
    let ids: std::collections::HashSet<_> = answers
        .iter()
        .filter(|answer| answer.status == 201)
        .map(|answer| answer.json()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 1);
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        answer.problem(409, "idempotency-in-flight");
    }
}

#[tokio::test]
async fn an_answer_is_replayed_whole() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let first = send(&app, owner, "k", schedule("a")).await.expect(201);
    assert_eq!(first.header("idempotency-replayed"), "");
    let again = send(&app, owner, "k", schedule("a")).await.expect(201);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!((&again.text, again.header("location")), (&first.text, first.header("location")));
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    send(&app, owner, "k", schedule("b")).await.problem(422, "idempotency-key-reused");
    // Another tenant, another actor, another key: other requests.
    send(&app, &app.theirs.owner, "k", schedule("a")).await.expect(201);
    send(&app, &app.ours.operator, "k", schedule("by another")).await.expect(201);
    send(&app, owner, "k2", schedule("a")).await.problem(409, "conflict");
    assert_eq!(made(&app).await, 3);
    for bad in ["", &"x".repeat(256)] {
        send(&app, owner, bad, schedule("c")).await.problem(400, "malformed");
    }
}

#[tokio::test]
async fn refusals_are_replayed_and_failures_are_not() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    send(&app, owner, "refused", json!({ "name": 1 })).await.problem(422, "invalid");
    let again = send(&app, owner, "refused", json!({ "name": 1 })).await.problem(422, "invalid");
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.json()["requestId"], again.header("x-request-id"));

    app.execute("alter table schedules rename to elsewhere").await;
    send(&app, owner, "failed", schedule("later")).await.problem(500, "internal");
    app.execute("alter table elsewhere rename to schedules").await;
    send(&app, owner, "failed", schedule("later")).await.expect(201);
}

#[tokio::test]
async fn a_secret_is_told_once() {
    let app = App::start().await;
    let ask = || {
        let request = app.request(&app.ours.user, Method::POST, "/api/v1/streams/ticket");
        Answer::of(request.header("idempotency-key", "t").json(&json!({ "path": "/api/v1/ws/jobs" })))
    };
    let ticket = ask().await.expect(201).json()["ticket"].as_str().unwrap().to_owned();
    ask().await.problem(409, "already-created");
    let kept = "select count(*) from idempotency_keys where body is not null or headers is not null";
    assert_eq!(app.count(kept).await, 0);
    assert!(ticket.starts_with("st_"));
}

#[tokio::test]
async fn an_answer_that_is_too_long_to_be_kept_is_no_secret() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let job = app.job(owner).await;
    app.set(
        job,
        "state = 'succeeded', finished_at = now(), result = jsonb_build_object('x', repeat('x', 70000))",
    )
    .await;
    let path = format!("/api/v1/jobs/{job}/cancel");
    let cancel = || Answer::of(app.request(owner, Method::POST, &path).header("idempotency-key", "k"));
    assert!(cancel().await.expect(200).text.len() > 70_000);
    let again = cancel().await.problem(409, "answer-not-kept").json();
    assert!(again["detail"].as_str().unwrap().contains("answered with 200"), "{again}");
}

#[tokio::test]
async fn a_path_may_be_longer_than_an_index_takes() {
    let app = App::start().await;
    // Random, since PostgreSQL compresses.
    let name = |n: usize| (0..n).map(|_| any_id().simple().to_string()[20..].to_owned()).collect::<String>();
    let (one, other) = (name(500), name(500));
    for (name, replayed) in [(&one, ""), (&one, "true"), (&other, "")] {
        let request = app.request(&app.ours.owner, Method::POST, &format!("/api/v1/queues/{name}/pause"));
        let answer = Answer::of(request.header("idempotency-key", "k")).await;
        assert!((400..500).contains(&answer.status), "{}: {}", answer.status, answer.text);
        assert_eq!(answer.header("idempotency-replayed"), replayed);
    }
}

#[tokio::test]
async fn a_lock_that_was_lost_is_taken_over_and_its_holder_rolls_back() {
    let app = App::start().await;
    let actor = streamspace_common::Actor::system(app.ours.id);
    let request = || idempotency::Request::new(app.master(), &actor, "POST", PATH, "k", &[b"body"]);
    let Begin::Run(slow) = idempotency::begin(&app.queue, request()).await.unwrap() else {
        panic!("the first runs")
    };
    assert!(matches!(idempotency::begin(&app.queue, request()).await.unwrap(), Begin::InFlight));

    // A master key's rotation is no other body.
    let rotated = app.master().clone().with_new_key();
    let under_both = idempotency::Request::new(&rotated, &actor, "POST", PATH, "k", &[b"body"]);
    assert!(matches!(idempotency::begin(&app.queue, under_both).await.unwrap(), Begin::InFlight));
    let other = idempotency::Request::new(&rotated, &actor, "POST", PATH, "k", &[b"another body"]);
    assert!(matches!(idempotency::begin(&app.queue, other).await.unwrap(), Begin::OtherBody));

    app.execute("update idempotency_keys set locked_until = now() - interval '1 s'").await;
    let Begin::Run(second) = idempotency::begin(&app.queue, request()).await.unwrap() else {
        panic!("a lock that expired is taken over")
    };
    let keep = |text: &str| {
        Keep::Whole(idempotency::Answer { status: 201, body: text.into(), ..idempotency::Answer::default() })
    };
    let mut tx = app.queue.begin(actor.clone(), Request::default());
    idempotency::finish(&mut tx, &second, keep("second")).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = app.queue.begin(actor.clone(), Request::default());
    let late = idempotency::finish(&mut tx, &slow, keep("slow")).await;
    assert!(matches!(late, Err(FinishError::Lost)));
    tx.rollback().await.unwrap();

    let Begin::Replay(answer) = idempotency::begin(&app.queue, request()).await.unwrap() else {
        panic!("an answer is replayed")
    };
    assert_eq!(answer.body, b"second");
    // After a day it is a new request.
    app.execute("update idempotency_keys set expires_at = now() - interval '1 s'").await;
    assert!(matches!(idempotency::begin(&app.queue, request()).await.unwrap(), Begin::Run(_)));
    app.execute("update idempotency_keys set expires_at = now() - interval '1 s'").await;
    let mut tx = app.queue.begin(actor, Request::default());
    assert!(!idempotency::prune(&mut tx).await.unwrap(), "nothing is left to do");
    tx.commit().await.unwrap();
    assert_eq!(app.count("select count(*) from idempotency_keys").await, 0);
}

#[tokio::test]
async fn an_operation_that_lost_its_lock_leaves_nothing() {
    let app = App::start().await;
    // Takes the lock away between the operation and the storing of its answer.
    app.execute(
        "create function steal() returns trigger language plpgsql as $$ begin
             update idempotency_keys set lock_id = gen_random_uuid(); return new; end $$;",
    )
    .await;
    app.execute("create trigger steal after insert on schedules for each row execute function steal()").await;
    let answer = send(&app, &app.ours.owner, "k", schedule("lost")).await;
    answer.problem(409, "idempotency-in-flight");
    assert_eq!(made(&app).await, 0);
    assert_eq!(app.count("select count(*) from audit where action = 'schedules.create'").await, 0);
}
