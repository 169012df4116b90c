//! Waiting for jobs: `?wait=` and server-sent events.

use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use streamspace_testkit::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::timeout,
};

use crate::{
    app::{Answer, App, Person},
    sockets,
};

/// Whether a request waits already, nobody else can tell.
const A_MOMENT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_wait_ends_with_its_job() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let job = app.job(owner).await;
    let path = format!("/api/v1/jobs/{job}?wait=30s");
    let start = Instant::now();
    let (answer, ()) = tokio::join!(app.get(owner, &path), async {
        tokio::time::sleep(A_MOMENT).await;
        app.set(job, "progress = '{\"percent\": 50}'").await;
        app.post(owner, &format!("/api/v1/jobs/{job}/cancel"), json!({})).await.expect(200);
    });
    assert_eq!(answer.expect(200).json()["state"], "cancelled");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // What is over is answered at once, and what is not when the time has passed.
    app.get(owner, &path).await.expect(200);
    let other = app.job(owner).await;
    let start = Instant::now();
    let waited = app.get(owner, &format!("/api/v1/jobs/{other}?wait=300ms")).await.expect(200).json();
    assert_eq!(waited["state"], "queued");
    assert_eq!(waited["waiting"]["reasons"][0]["reason"], "no_worker");
    assert!(start.elapsed() >= Duration::from_millis(300));
    for wrong in ["soon", "61s", "-1s", ""] {
        app.get(owner, &format!("/api/v1/jobs/{other}?wait={wrong}")).await.problem(422, "invalid");
    }
}

#[tokio::test]
async fn what_no_hint_tells_is_seen_soon() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let job = app.job(owner).await;
    let path = format!("/api/v1/jobs/{job}?wait=30s");
    let start = Instant::now();
    let (answer, ()) = tokio::join!(app.get(owner, &path), async {
        tokio::time::sleep(A_MOMENT).await;
        app.succeed(job).await;
    });
    assert_eq!(answer.expect(200).json()["state"], "succeeded");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_waiting_client_holds_no_connection() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let job = app.job(owner).await;
    let path = format!("/api/v1/jobs/{job}?wait=30s");
    // As many as one person may have, which is more than there are connections.
    let waiting = join_all((0..20).map(|_| app.get(owner, &path)));
    let meanwhile = async {
        let full = eventually(Duration::from_secs(10), "the twenty-first is refused", async || {
            let answer = app.get(owner, &format!("/api/v1/jobs/{job}?wait=1ms")).await;
            (answer.status == 429).then_some(answer)
        })
        .await;
        assert_eq!(full.problem(429, "too-many-streams").header("retry-after"), "5");
        // Everything else is served, and so is everybody else.
        app.get(owner, "/api/v1/jobs").await.expect(200);
        app.get(&app.ours.operator, &format!("/api/v1/jobs/{job}?wait=1ms")).await.expect(200);
        app.succeed(job).await;
    };
    let (answers, ()) = tokio::join!(waiting, meanwhile);
    for answer in answers {
        assert_eq!(answer.expect(200).json()["state"], "succeeded");
    }
    app.get(owner, &path).await.expect(200);
}

/// Server-sent events as they arrive.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(app: &App, who: &Person, path: &str, last: Option<i64>) -> Self {
        let mut request = app.request(who, Method::GET, path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        Self { response, text: String::new() }
    }

    /// Reads on until this was said.
    async fn until(&mut self, said: &str) {
        while !self.text.contains(said) {
            assert!(self.read().await, "the stream ended before {said:?}: {}", self.text);
        }
    }

    /// `false`: the stream has ended.
    async fn read(&mut self) -> bool {
        let chunk = timeout(Duration::from_secs(20), self.response.chunk()).await.expect("something arrives");
        let chunk = chunk.unwrap();
        self.text.push_str(&String::from_utf8_lossy(chunk.as_deref().unwrap_or_default()));
        chunk.is_some()
    }

    /// All of them to the end of the stream, as `(id, name, data)`.
    async fn all(mut self) -> Vec<(i64, String, Value)> {
        while self.read().await {}
        let field = |block: &str, name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        let blocks = self.text.split("\n\n").filter(|block| block.contains("data: "));
        blocks
            .map(|block| {
                let data = serde_json::from_str(&field(block, "data")).unwrap();
                (field(block, "id").parse().unwrap_or_default(), field(block, "event"), data)
            })
            .collect()
    }
}

#[tokio::test]
async fn events_tell_of_a_job_to_its_end_and_resume() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let job = app.job(owner).await;
    let path = format!("/api/v1/jobs/{job}/events");
    let mut stream = Events::open(&app, owner, &path, None).await;
    stream.until("queued").await;
    app.set(job, "progress = '{\"percent\": 50}'").await;
    stream.until("job.progress").await;
    app.succeed(job).await;
    let heard = stream.all().await;
    let (last, name, data) = heard.last().unwrap();
    assert_eq!((name.as_str(), &data["state"]), ("job.state.changed", &json!("succeeded")));
    assert_eq!((&data["terminal"], &data["rowVersion"]), (&json!(true), &json!(last)));
    assert_eq!(heard[0].2["state"], "queued");
    assert!(
        heard.iter().any(|(_, name, data)| name == "job.progress" && data["progress"]["percent"] == 50.0)
    );
    assert!(heard.windows(2).all(|pair| pair[0].0 < pair[1].0), "versions rise");

    // Whoever has seen the first hears the end; whoever has seen the end hears nothing more.
    let resumed = Events::open(&app, owner, &path, Some(heard[0].0)).await.all().await;
    assert_eq!(resumed.iter().map(|event| event.0).collect::<Vec<_>>(), [*last]);
    let known = app.request(owner, Method::GET, &path).header("last-event-id", *last);
    Answer::of(known).await.expect(204);
}

#[tokio::test]
async fn a_revoked_key_ends_its_streams() {
    let app = App::start().await;
    let user = &app.ours.user;
    let job = app.job(user).await;
    let (events_path, wait_path) =
        (format!("/api/v1/jobs/{job}/events"), format!("/api/v1/jobs/{job}?wait=30s"));
    let mut stream = Events::open(&app, user, &events_path, None).await;
    stream.until("queued").await;
    let (heard, waited, revoked) = tokio::join!(stream.all(), app.get(user, &wait_path), async {
        tokio::time::sleep(A_MOMENT).await;
        app.revoke(user).await;
        Instant::now()
    });
    assert!(revoked.elapsed() < Duration::from_secs(5), "{:?}", revoked.elapsed());
    let (_, name, data) = heard.last().unwrap();
    assert_eq!((name.as_str(), &data["reason"]), ("end", &json!("revoked")));
    waited.problem(401, "unauthenticated");
}

#[tokio::test]
async fn an_outage_of_the_database_revokes_nobody() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let job = app.job(owner).await;
    let (events_path, wait_path) =
        (format!("/api/v1/jobs/{job}/events"), format!("/api/v1/jobs/{job}?wait=30s"));
    let mut socket = sockets::connect(app.address, "/api/v1/ws/jobs", Some(&owner.key)).await.unwrap();
    let mut stream = Events::open(&app, owner, &events_path, None).await;
    stream.until("queued").await;
    let (heard, waited, closed, ()) =
        tokio::join!(stream.all(), app.get(owner, &wait_path), sockets::next(&mut socket), async {
            tokio::time::sleep(A_MOMENT).await;
            app.execute("alter table api_keys rename to elsewhere").await;
        });
    let (_, name, data) = heard.last().unwrap();
    assert_eq!((name.as_str(), &data["reason"]), ("end", &json!("unavailable")));
    assert_eq!(waited.problem(503, "unavailable").header("retry-after"), "1");
    assert_eq!(closed, Err("unavailable".to_owned()));
    app.execute("alter table elsewhere rename to api_keys").await;
    app.get(owner, &format!("/api/v1/jobs/{job}?wait=1ms")).await.expect(200);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_keeps_its_place_until_its_connection_ends() {
    let app = App::start().await;
    let (owner, operator) = (&app.ours.owner, &app.ours.operator);
    let (job, other) = (app.job(owner).await, app.job(owner).await);
    let tcp = TcpSocket::new_v4().unwrap();
    tcp.set_recv_buffer_size(8 * 1024).unwrap();
    let mut unread = tcp.connect(app.address).await.unwrap();
    let path = format!("/api/v1/jobs/{job}/events");
    let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\nx-api-key: {}\r\n\r\n", owner.key);
    unread.write_all(request.as_bytes()).await.unwrap();
    unread.read_exact(&mut [0; 64]).await.unwrap();
    let wait = format!("/api/v1/jobs/{other}?wait=30s");
    let waiting = join_all((0..19).map(|_| app.get(owner, &wait)));
    let meanwhile = async {
        let mut read = Events::open(&app, operator, &path, None).await;
        let first = app.count(&format!("select row_version from jobs where id = '{job}'")).await;
        read.until(&format!("id: {first}\n")).await;
        // More than the kernel takes, and than a client may have waiting.
        for version in first + 1..first + 5 {
            app.set(job, "result = jsonb_build_object('text', repeat('x', 3000000))").await;
            read.until(&format!("id: {version}\n")).await;
            read.text.clear();
        }
        let one_more = format!("/api/v1/jobs/{other}?wait=1ms");
        app.get(owner, &one_more).await.problem(429, "too-many-streams");
        drop(unread);
        eventually(Duration::from_secs(10), "the place is free", async || {
            (app.get(owner, &one_more).await.status == 200).then_some(())
        })
        .await;
        app.succeed(other).await;
    };
    tokio::join!(waiting, meanwhile);
}

#[tokio::test]
async fn a_job_that_goes_away_ends_its_streams() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let job = app.job(owner).await;
    let path = format!("/api/v1/jobs/{job}/events");
    let mut stream = Events::open(&app, owner, &path, None).await;
    stream.until("queued").await;
    app.execute(&format!("delete from jobs where id = '{job}'")).await;
    let heard = stream.all().await;
    assert_eq!(heard.last().unwrap().2["reason"], "gone");
}

#[tokio::test]
async fn a_stopping_process_ends_its_streams() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let job = app.job(owner).await;
    let path = format!("/api/v1/jobs/{job}/events");
    let mut stream = Events::open(&app, owner, &path, None).await;
    stream.until("queued").await;
    app.stop();
    let heard = stream.all().await;
    assert_eq!(heard.last().unwrap().2["reason"], "going-away");
}
