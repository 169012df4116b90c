//! A request under an `Idempotency-Key` acts once, however often it is sent and whoever dies.

use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::support::*;

/// A laboratory with an API and a schedule; each request to run it is one job.
struct Desk {
    lab: Lab,
    api: Arc<Api>,
    key: String,
    run: String,
}

impl Desk {
    async fn open() -> Result<Self> {
        let lab = Lab::new().await?;
        let api = Arc::new(lab.api().await?);
        let key = lab.organisation("acme").await?.owner;
        let schedule = json!({ "name": "nightly", "kind": "lab.play", "cron": "0 0 1 1 *", "arguments": Script::idle() });
        let made = api.call("POST", "/api/v1/schedules", Some(&key), Some(&schedule)).await?;
        assert_eq!(made.status(), 201);
        let id = made.json::<Value>().await?["id"].as_str().context("a schedule has an id")?.to_owned();
        Ok(Self { lab, api, key, run: format!("/api/v1/schedules/{id}/run") })
    }

    /// Sends it as a patient client does: again while the first is being answered.
    async fn send(&self, api: &Api, name: &str) -> Result<(Value, bool)> {
        let start = Instant::now();
        loop {
            let answer = api.post_once(&self.run, &self.key, name).await?;
            let replayed = answer.headers().contains_key("idempotency-replayed");
            match answer.status().as_u16() {
                202 => return Ok((answer.json::<Value>().await?["jobId"].clone(), replayed)),
                409 if start.elapsed() < SOON => tokio::time::sleep(ms(20)).await,
                status => anyhow::bail!("{status}: {}", answer.text().await?),
            }
        }
    }

    async fn jobs(&self) -> i64 {
        self.lab.number("select count(*) from jobs").await
    }

    /// The API is gone at once, with a request in its hands; another one takes its place.
    async fn replace(&mut self) -> Result<()> {
        self.api.process.kill9().await;
        self.api = Arc::new(self.lab.api().await?);
        Ok(())
    }

    /// Sends it and does not wait.
    fn send_off(&self, name: &str) {
        let (api, run, key, name) = (self.api.clone(), self.run.clone(), self.key.clone(), name.to_owned());
        tokio::spawn(async move { api.post_once(&run, &key, &name).await.map(|answer| answer.status()) });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_equal_requests_at_once_have_one_effect() -> Result<()> {
    let desk = Desk::open().await?;
    let answers = futures::future::try_join_all((0..50).map(|_| desk.send(&desk.api, "once"))).await?;
    assert_eq!(desk.jobs().await, 1);
    assert!(answers.iter().all(|(job, _)| *job == answers[0].0), "all are told of the same job");
    assert_eq!(
        answers.iter().filter(|(_, replayed)| !replayed).count(),
        1,
        "one was answered, the others again"
    );
    desk.send(&desk.api, "another").await?;
    assert_eq!(desk.jobs().await, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_commit_nothing_has_happened_and_the_next_one_acts() -> Result<()> {
    let mut desk = Desk::open().await?;
    let mut blocker = PgConnection::connect(desk.lab.database.url()).await?;
    let mut blocking = blocker.begin().await?;
    sqlx::query("lock table jobs in share mode").execute(&mut *blocking).await?;
    desk.send_off("once");
    desk.lab.sees_number(WAITING, 1, SOON).await;
    desk.replace().await?;
    blocking.rollback().await?;
    eventually(SOON, "nobody works for the dead any more", async || {
        (desk.lab.number(WAITING).await == 0).then_some(())
    })
    .await;
    assert_eq!(desk.jobs().await, 0);
    // Its lock on the key is its own for a minute.
    desk.lab.database.shift_clock("streamspace.clock_shift", "61 s").await?;
    let (_, replayed) = desk.send(&desk.api, "once").await?;
    assert!(!replayed);
    assert_eq!(desk.jobs().await, 1);
    Ok(())
}

/// A trigger of the test holds the commit itself: it is under way when its process dies, and goes
/// through.
#[tokio::test(flavor = "multi_thread")]
async fn killed_inside_the_commit_it_has_happened_once() -> Result<()> {
    let mut desk = Desk::open().await?;
    sqlx::raw_sql(
        "create function hold() returns trigger language plpgsql as
            $$ begin perform pg_advisory_xact_lock(4242); return null; end $$;
         create constraint trigger hold after insert on jobs deferrable initially deferred
            for each row execute function hold()",
    )
    .execute(&desk.lab.pool)
    .await?;
    let mut blocker = PgConnection::connect(desk.lab.database.url()).await?;
    sqlx::query("select pg_advisory_lock(4242)").execute(&mut blocker).await?;
    desk.send_off("once");
    desk.lab.sees_number(WAITING, 1, SOON).await;
    desk.replace().await?;
    sqlx::query("select pg_advisory_unlock(4242)").execute(&mut blocker).await?;
    desk.lab.sees_number("select count(*) from jobs", 1, SOON).await;
    let (_, replayed) = desk.send(&desk.api, "once").await?;
    assert!(replayed, "what was committed is answered again");
    assert_eq!(desk.jobs().await, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_commit_it_is_answered_again() -> Result<()> {
    let mut desk = Desk::open().await?;
    for sent in 1..=5 {
        let name = format!("request {sent}");
        desk.send_off(&name);
        desk.lab.sees_number("select count(*) from jobs", sent, SOON).await;
        desk.replace().await?;
        let (_, replayed) = desk.send(&desk.api, &name).await?;
        assert!(replayed);
        assert_eq!(desk.jobs().await, sent);
    }
    Ok(())
}

/// Sessions of the API that wait for a lock.
const WAITING: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'fleet' and wait_event_type = 'Lock'";
