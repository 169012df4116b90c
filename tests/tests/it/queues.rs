//! Pauses and limits of queues hold over the whole fleet, and are obeyed within a second.

use anyhow::Result;
use streamspace_queue::Options;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_starts_nothing_a_second_later() -> Result<()> {
    let lab = Lab::new().await?;
    let role = lab.worker().concurrency(8);
    let _fleet = [role.start().await, role.start().await];
    lab.enqueue_many((0..2_000).map(|_| play([Sleep(10)]))).await?;
    lab.sees("start", 50, SOON).await;
    lab.pause("lab").await?;
    let paused = Instant::now();
    eventually(SOON, "a second is over", async || (paused.elapsed() >= ms(1_000)).then_some(())).await;
    let started = lab.effects_named("start").await;
    assert!(started < 2_000, "there is still something to start");
    holds_for(ms(2_500), "nothing starts", async || lab.effects_named("start").await == started).await;
    lab.resume("lab").await?;
    lab.sees("start", started + 1, ms(1_500)).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_by_a_tenant_holds_for_its_jobs_only() -> Result<()> {
    let lab = Lab::new().await?;
    let _worker = lab.worker().start().await;
    let other = lab.tenant().await?;
    lab.pause_for(lab.tenant, "lab").await?;
    lab.sees_controls().await;
    let waits = lab.enqueue(play([])).await?;
    let runs = lab.enqueue_for(other, [play([])]).await?[0];
    lab.reaches(runs, "succeeded", SOON).await;
    holds_for(ms(1_500), "the tenant's own job waits", async || lab.job(waits).await.state == "queued").await;
    lab.resume_for(lab.tenant, "lab").await?;
    lab.reaches(waits, "succeeded", SOON).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn max_running_holds_over_three_workers() -> Result<()> {
    let lab = Lab::new().await?;
    lab.limit_running("lab", 5).await?;
    let role = lab.worker().concurrency(10);
    let _fleet = [role.start().await, role.start().await, role.start().await];
    lab.enqueue_many((0..60).map(|_| play([Sleep(100), note("end")]))).await?;
    let mut most = 0;
    eventually(LATER, "all are done", async || {
        most = most.max(lab.in_state("running").await);
        (lab.in_state("succeeded").await == 60).then_some(())
    })
    .await;
    assert_eq!(most, 5, "the limit is used and never passed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_of_50_per_second_over_three_workers_is_50_in_every_second() -> Result<()> {
    let lab = Lab::quiet().await?;
    lab.limit_rate("lab", 50).await?;
    let role = lab.worker().concurrency(40);
    let _fleet = [role.start().await, role.start().await, role.start().await];
    lab.enqueue_many((0..420).map(|_| play([]))).await?;
    lab.settles(LATER).await;
    let per_second: Vec<i64> = sqlx::query_scalar(
        "with t as (select extract(epoch from at - min(at) over ())::float8 as t from effects where name = 'start')
         select count(*) from t group by floor(t) order by floor(t)",
    )
    .fetch_all(&lab.pool)
    .await?;
    report!("rate 50/s over three workers, starts in each second: {per_second:?}");
    let (_last, whole) = per_second.split_last().expect("it took seconds");
    assert!(whole.len() >= 7 && whole.iter().all(|n| (45..=55).contains(n)), "{per_second:?}");
    Ok(())
}

/// A limit is no lower priority: what has one and what has none take turns.
#[tokio::test(flavor = "multi_thread")]
async fn a_limited_queue_is_served_beside_an_endless_one_without_limits() -> Result<()> {
    let lab = Lab::new().await?;
    lab.limit_running("side", 2).await?;
    let _worker = lab.worker().concurrency(4).start().await;
    lab.enqueue_many((0..4_000).map(|_| play([Sleep(20)]))).await?;
    lab.sees("start", 20, SOON).await;
    let side = Options { queue: Some("side".into()), ..Options::default() };
    for _ in 0..5 {
        lab.enqueue_with(play([note("side")]), side.clone()).await?;
    }
    lab.sees("side", 5, ms(3_000)).await;
    assert!(lab.in_state("queued").await > 1_000, "and the others have not ended meanwhile");
    Ok(())
}
