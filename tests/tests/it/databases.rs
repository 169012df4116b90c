//! The database and Redis may go away and come back.

use anyhow::{Context, Result};
use reqwest::Response;
use streamspace_common::JobId;
use streamspace_testkit::{Options, PgBouncer, Redis};

use crate::support::*;

/// Jobs that take a moment, so that something is always under way.
fn load(n: usize) -> impl Iterator<Item = Play> {
    (0..n).map(|i| play([step("first"), Sleep(20 + (i as u64 % 7) * 10), commit("effect")]))
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_restarted_and_crashes_under_load() -> Result<()> {
    let postgres = Postgres::start(Options { fsync: true, ..Options::default() }).await?;
    let lab = Lab::on_own(&postgres).await?;
    let workers = [lab.worker().concurrency(40).start().await, lab.worker().concurrency(40).start().await];
    lab.enqueue_many(load(3_000)).await?;
    lab.sees("effect", 300, LATER).await;
    postgres.restart().await?;
    lab.comes_back().await;
    let done = lab.effects_named("effect").await;
    lab.sees("effect", done + 300, LATER).await;
    postgres.crash().await;
    postgres.restart().await?;
    lab.comes_back().await;

    lab.settles(LATER).await;
    lab.once_each("first", 3_000).await;
    lab.once_each("effect", 3_000).await;
    assert_eq!(lab.in_state("succeeded").await, 3_000);
    assert!(
        workers.iter().all(|worker| worker.status().is_none()),
        "the workers are those that were started"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_are_killed_under_load() -> Result<()> {
    let lab = Lab::new().await?;
    let worker = lab.worker().concurrency(60).start().await;
    lab.enqueue_many(load(2_000)).await?;
    for round in 1..=15 {
        lab.sees("effect", round * 100, LATER).await;
        lab.database.kill_backends("%").await?;
        lab.comes_back().await;
    }
    lab.settles(LATER).await;
    lab.once_each("first", 2_000).await;
    lab.once_each("effect", 2_000).await;
    assert!(worker.status().is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_listener_costs_a_poll_and_comes_back() -> Result<()> {
    let lab = Lab::quiet().await?;
    let worker = lab.worker().start().await;
    let starts = async |job| {
        lab.reaches(job, "succeeded", SOON).await;
        let sql = format!(
            "select extract(epoch from e.at - j.created_at)::float8 * 1000
             from jobs j join effects e on e.job_id = j.id where j.id = '{job}' and e.name = 'start'"
        );
        lab.durations(&sql).await[0]
    };
    for _ in 0..5 {
        eventually(SOON, "it listens, and is cut", async || {
            let cut = lab.database.kill_backends("%LISTEN%").await.ok()?;
            (cut > 0).then_some(())
        })
        .await;
        let took = starts(lab.enqueue(play([])).await?).await;
        assert!(took < ms(1_500), "a poll finds it: {took:?}");
    }
    worker.line("the listener is back", SOON).await;
    eventually(SOON, "jobs start at once again", async || {
        (starts(lab.enqueue(play([])).await.ok()?).await < ms(50)).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_while_redis_is_dead_and_after_it_is_back() -> Result<()> {
    let lab = Lab::new().await?;
    let mut redis = Redis::start().await?;
    let _worker = lab.worker().redis(&redis.url()).start().await;
    let run = async |n| {
        lab.enqueue_many(load(100)).await?;
        lab.sees("effect", n, SOON).await;
        anyhow::Ok(())
    };
    run(100).await?;
    redis.kill().await;
    run(200).await?;
    redis.restart().await?;
    run(300).await?;
    Ok(())
}

/// Two APIs that hear of each other over Redis, and somebody who watches at one what happens at the
/// other.
struct Replicas {
    lab: Lab,
    here: Api,
    there: Api,
    owner: Organisation,
}

struct Watched {
    job: JobId,
    stream: Response,
    heard: String,
}

impl Replicas {
    async fn start(redis: &Redis) -> Result<Self> {
        let lab = Lab::quiet().await?;
        let here = lab.api_with_redis(&redis.url()).await?;
        let there = lab.api_with_redis(&redis.url()).await?;
        let owner = lab.organisation("acme").await?;
        Ok(Self { lab, here, there, owner })
    }

    async fn watch(&self) -> Result<Watched> {
        let job = self.lab.enqueue_for(self.owner.tenant, [play([])]).await?[0];
        let path = format!("/api/v1/jobs/{job}/events");
        let stream = self.here.call("GET", &path, Some(&self.owner.owner), None).await?;
        assert_eq!(stream.status(), 200);
        let mut watched = Watched { job, stream, heard: String::new() };
        watched.hears(r#""state":"queued""#).await?;
        Ok(watched)
    }

    /// How long it takes until a change that was made there is heard here.
    async fn delay(&self, mut watched: Watched) -> Result<Duration> {
        let path = format!("/api/v1/jobs/{}/cancel", watched.job);
        let answer = self.there.call("POST", &path, Some(&self.owner.owner), None).await?;
        assert_eq!(answer.status(), 200);
        let start = Instant::now();
        watched.hears(r#""state":"cancelled""#).await?;
        Ok(start.elapsed())
    }

    /// Several in a row, which no poll of once a second would do.
    async fn hears_at_once(&self) -> Result<bool> {
        for _ in 0..5 {
            if self.delay(self.watch().await?).await? > ms(250) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Watched {
    async fn hears(&mut self, text: &str) -> Result<()> {
        while !self.heard.contains(text) {
            let chunk =
                tokio::time::timeout(SOON, self.stream.chunk()).await.context("nothing is heard")??;
            let chunk = chunk.with_context(|| format!("the stream ended after {}", self.heard))?;
            self.heard.push_str(&String::from_utf8_lossy(&chunk));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_while_redis_is_dead_and_are_quick_when_it_is_back() -> Result<()> {
    let mut redis = Redis::start().await?;
    let replicas = Replicas::start(&redis).await?;
    let at_once = async || replicas.hears_at_once().await.expect("streams go on").then_some(());
    eventually(LATER, "live events come over Redis", at_once).await;

    let (during, after) = (replicas.watch().await?, replicas.watch().await?);
    redis.kill().await;
    replicas.here.process.line("live events from Redis stopped", SOON).await;
    replicas.delay(during).await?;
    replicas.delay(replicas.watch().await?).await?;
    assert!(!replicas.hears_at_once().await?, "only a poll tells of changes now");

    redis.restart().await?;
    replicas.here.process.line("live events from Redis are back", SOON).await;
    replicas.delay(after).await?;
    eventually(LATER, "live events come over Redis again", at_once).await;
    Ok(())
}

/// What poolers in transaction mode are known to break: LISTEN, prepared statements, session state.
#[tokio::test(flavor = "multi_thread")]
async fn everything_works_behind_pgbouncer() -> Result<()> {
    let lab = Lab::new().await?;
    let bouncer = PgBouncer::start(&lab.database).await?;
    let role = lab.worker().behind(bouncer.url()).concurrency(30);
    let (one, _two) = (role.start().await, role.start().await);
    lab.enqueue_many(load(500)).await?;
    let parked =
        lab.enqueue(play([Park("event".into(), 60_000).first(), Checkpoint(1), commit("effect")])).await?;
    let keyed = (0..10).map(|_| Play(Script::of([Sleep(20), commit("effect")]).with_slot("key", 1)));
    lab.enqueue_many(keyed).await?;
    let cancelled = lab.enqueue(play([UntilCancelled])).await?;
    lab.reaches(parked, "parked", SOON).await;
    lab.happened("event").await?;
    lab.sees_start_of(cancelled).await;
    lab.cancel(cancelled).await?;
    one.kill9().await;
    lab.settles(LATER).await;
    lab.once_each("effect", 511).await;
    assert_eq!((lab.in_state("succeeded").await, lab.in_state("cancelled").await), (511, 1));
    Ok(())
}
