//! WebSockets and the tickets that open them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::{
    app::{Answer, App, PASSWORD, Person},
    sign_in::{cheap, login},
};

pub type Socket = WebSocketStream<TcpStream>;

const PATH: &str = "/api/v1/ws/jobs";

pub async fn connect(at: SocketAddr, path: &str, key: Option<&str>) -> Result<Socket, u16> {
    let key = key.map(|key| ("x-api-key", key));
    connect_with(at, path, key.as_slice()).await
}

async fn connect_with(at: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    let mut request = format!("ws://{at}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let tcp = TcpSocket::new_v4().unwrap();
    // Small, so that whoever does not read is noticed.
    tcp.set_recv_buffer_size(8 * 1024).unwrap();
    match client_async(request, tcp.connect(at).await.unwrap()).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn open(app: &App, who: &Person, query: &str) -> Socket {
    connect(app.address, &format!("{PATH}{query}"), Some(&who.key)).await.unwrap()
}

/// The next message, or why the socket was closed.
pub async fn next(socket: &mut Socket) -> Result<Value, String> {
    loop {
        match tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect("something arrives") {
            Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(Some(close)))) => return Err(close.reason.to_string()),
            Some(Ok(_)) => {}
            other => return Err(format!("cut: {other:?}")),
        }
    }
}

#[tokio::test]
async fn changes_arrive_as_messages_and_only_ones_own() {
    let app = App::start().await;
    let mut mine = open(&app, &app.ours.user, "").await;
    let mut all = open(&app, &app.ours.operator, "").await;
    let mut theirs = open(&app, &app.theirs.owner, "").await;
    let mut other_kind = open(&app, &app.ours.operator, "?kind=other").await;

    let others = app.job(&app.ours.owner).await;
    let job = app.job(&app.ours.user).await;
    let message = next(&mut mine).await.unwrap();
    assert_eq!((&message["type"], &message["jobId"]), (&json!("job.state.changed"), &json!(job)));
    assert_eq!(message["userId"], json!(app.ours.user.id));
    assert_eq!(
        message["data"],
        json!({ "kind": "test.nothing", "state": "queued", "previousState": null, "attempt": 0, "error": null })
    );
    assert_eq!(next(&mut all).await.unwrap()["jobId"], json!(others));
    assert_eq!(next(&mut all).await.unwrap()["jobId"], json!(job));

    app.set(job, "progress = '{\"percent\": 40, \"message\": \"well\"}'").await;
    let message = next(&mut mine).await.unwrap();
    assert_eq!(message["type"], "job.progress");
    assert_eq!((&message["data"]["percent"], &message["data"]["message"]), (&json!(40), &json!("well")));
    app.post(&app.ours.user, &format!("/api/v1/jobs/{job}/cancel"), json!({})).await.expect(200);
    let message = next(&mut mine).await.unwrap();
    assert_eq!(message["data"]["state"], "cancelled");
    assert_eq!(message["data"]["previousState"], "queued");

    let job = app.job(&app.theirs.owner).await;
    assert_eq!(next(&mut theirs).await.unwrap()["jobId"], json!(job));
    let quiet = tokio::time::timeout(Duration::from_millis(1500), next(&mut other_kind)).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test]
async fn another_process_is_heard_of() {
    let app = App::start().await;
    let mut socket = connect(app.another().await, PATH, Some(&app.ours.owner.key)).await.unwrap();
    let job = app.job(&app.ours.owner).await;
    assert_eq!(next(&mut socket).await.unwrap()["jobId"], json!(job));
}

#[tokio::test]
async fn one_job_can_be_watched() {
    let app = App::start().await;
    let (job, other) = (app.job(&app.ours.user).await, app.job(&app.ours.user).await);
    let mut socket = open(&app, &app.ours.user, &format!("?jobId={job}")).await;
    app.fail(other).await;
    app.set(job, "attempt = 1, state = 'running'").await;
    let message = next(&mut socket).await.unwrap();
    assert_eq!((&message["jobId"], &message["data"]["state"]), (&json!(job), &json!("running")));
    let foreign = app.job(&app.theirs.owner).await;
    let path = format!("{PATH}?jobId={foreign}");
    assert_eq!(connect(app.address, &path, Some(&app.ours.owner.key)).await.unwrap_err(), 404);
}

#[tokio::test]
async fn a_revoked_key_ends_its_sockets() {
    let app = App::start().await;
    let mut socket = open(&app, &app.ours.user, "").await;
    app.revoke(&app.ours.user).await;
    let start = Instant::now();
    assert_eq!(next(&mut socket).await, Err("revoked".to_owned()));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_slow_consumer_is_closed_and_delays_nobody() {
    const JOBS: usize = 600;
    const AT_ONCE: usize = 20;
    let app = App::start().await;
    let mut slow = open(&app, &app.ours.operator, "").await;
    let mut quick = open(&app, &app.ours.owner, "").await;
    // 24 MB, more than the sockets take that lie between: as ids are made by those who enqueue. In portions
    // that are kept for whoever reads on.
    let some = format!(
        "insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms, max_attempts, state,
                           kind, queue, lane, creator_type, args, errors)
         select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
                 || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid,
                '{}', now(), now(), now(), 1, 1000, 1, 'failed', 'test.nothing', 'tests', 'tests', 'system', '{{}}',
                jsonb_build_array(jsonb_build_object('attempt', 1, 'at', now(), 'kind', 'error',
                                                     'message', repeat('x', 40000)))
         from generate_series(1, {AT_ONCE})",
        app.ours.id
    );
    for n in 0..JOBS {
        if n % AT_ONCE == 0 {
            app.execute(&some).await;
        }
        next(&mut quick).await.unwrap_or_else(|why| panic!("closed after {n}: {why}"));
    }
    let mut heard = 0;
    let why = loop {
        match next(&mut slow).await {
            Ok(_) => heard += 1,
            Err(why) => break why,
        }
    };
    assert!(heard < JOBS, "it was not slow");
    // The connection may be cut before the reason got through.
    assert!(why == "slow-consumer" || why.starts_with("cut"), "{why}");
}

async fn ticket(app: &App, who: &Person, path: &str) -> String {
    let answer = app.post(who, "/api/v1/streams/ticket", json!({ "path": path })).await.expect(201).json();
    answer["ticket"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_ticket_opens_its_path_once() {
    let app = App::start().await;
    let user = &app.ours.user;
    let with = |ticket: &str| format!("{PATH}?ticket={ticket}");
    // On any replica, with the rights of who asked for it.
    let good = ticket(&app, user, PATH).await;
    let mut socket = connect(app.another().await, &with(&good), None).await.unwrap();
    assert_eq!(connect(app.address, &with(&good), None).await.unwrap_err(), 401);
    let (other, mine) = (app.job(&app.ours.owner).await, app.job(user).await);
    assert_eq!(next(&mut socket).await.unwrap()["jobId"], json!(mine), "not {other}");

    let elsewhere = ticket(&app, user, &format!("/api/v1/jobs/{mine}/events")).await;
    assert_eq!(connect(app.address, &with(&elsewhere), None).await.unwrap_err(), 401);
    let old = ticket(&app, user, PATH).await;
    app.execute("update stream_tickets set expires_at = now() - interval '1 s'").await;
    assert_eq!(connect(app.address, &with(&old), None).await.unwrap_err(), 401);

    // Ten at once: one gets in.
    let contested = with(&ticket(&app, user, PATH).await);
    let opened = join_all((0..10).map(|_| connect(app.address, &contested, None))).await;
    assert_eq!(opened.into_iter().filter(Result::is_ok).count(), 1);

    // Tickets open streams, nothing else.
    let wrong = json!({ "path": "/api/v1/queues" });
    app.post(user, "/api/v1/streams/ticket", wrong).await.problem(422, "invalid");
    let good = ticket(&app, user, PATH).await;
    let request = app.anonymous(Method::GET, &format!("/api/v1/jobs?ticket={good}"));
    Answer::of(request).await.problem(401, "unauthenticated");
}

/// A ticket is worth no more than the token that it was asked for with.
#[tokio::test]
async fn a_ticket_of_an_access_token_ends_with_it() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug });
    let signed_in = login(&app, body).await.expect(200).json();
    let asked = async || {
        let ask = app.anonymous(Method::POST, "/api/v1/streams/ticket");
        let ask = ask.bearer_auth(signed_in["accessToken"].as_str().unwrap());
        let given = Answer::of(ask.json(&json!({ "path": PATH }))).await.expect(201).json();
        format!("{PATH}?ticket={}", given["ticket"].as_str().unwrap())
    };
    let some = "select count(*) from stream_tickets where holder_until between now() + interval '29 min' and now() + interval '31 min'";
    let (soon, past) = (asked().await, asked().await);
    assert_eq!(app.count(some).await, 2, "its end is noted");
    app.execute("update stream_tickets set holder_until = now() + interval '2 s'").await;
    let mut socket = connect(app.address, &soon, None).await.unwrap();
    let start = Instant::now();
    assert_eq!(next(&mut socket).await, Err("revoked".to_owned()));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(connect(app.address, &past, None).await.unwrap_err(), 401);
}

/// Whoever opened it, and however: a cookie, a token, a ticket.
#[tokio::test]
async fn sockets_of_a_sign_in_end_with_it() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let origin = format!("http://{}", app.address);
    let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug });
    let disable = format!("update users set active = false where id = '{}'", who.id);
    let suspend = format!("update tenants set active = false where id = '{}'", who.tenant);
    for ending in ["delete from sign_ins", &disable, &suspend] {
        app.execute("update users set active = true").await;
        app.execute("update tenants set active = true").await;
        let signed_in = login(&app, body.clone()).await.expect(200).json();
        let bearer = format!("Bearer {}", signed_in["accessToken"].as_str().unwrap());
        let in_browser = app.anonymous(Method::POST, "/api/v1/auth/login").header("origin", &origin);
        let in_browser = Answer::of(in_browser.json(&body)).await.expect(200);
        let cookie = in_browser.header("set-cookie").split(';').next().unwrap().to_owned();
        let ask = app.anonymous(Method::POST, "/api/v1/streams/ticket").header("cookie", &cookie);
        let given =
            Answer::of(ask.header("origin", &origin).json(&json!({ "path": PATH }))).await.expect(201);
        let given = format!("{PATH}?ticket={}", given.json()["ticket"].as_str().unwrap());

        let mut open = [
            connect_with(app.address, PATH, &[("authorization", &bearer)]).await.unwrap(),
            connect_with(app.address, PATH, &[("cookie", &cookie), ("origin", &origin)]).await.unwrap(),
            connect(app.address, &given, None).await.unwrap(),
        ];
        let job = app.job(who).await;
        for socket in &mut open {
            assert_eq!(next(socket).await.unwrap()["jobId"], json!(job));
        }
        app.execute(ending).await;
        let start = Instant::now();
        for socket in &mut open {
            assert_eq!(next(socket).await, Err("revoked".to_owned()), "{ending}");
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{ending}: {:?}", start.elapsed());
    }
}
