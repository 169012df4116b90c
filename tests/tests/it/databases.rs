//! The database and Redis may go away and come back.

use anyhow::Result;
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
