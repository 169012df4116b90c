//! One tenant's hundred thousand jobs do not starve another's one.

use anyhow::Result;
use streamspace_queue::Job as _;

use crate::support::*;

/// Tenant A has every slot of three workers that it may take, with jobs of ten seconds, and a
/// hundred thousand waiting. B's jobs come one at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_job_starts_within_250_ms_beside_a_hundred_thousand() -> Result<()> {
    in_one_of_three_rounds(ms(250), async || {
        let lab = Lab::quiet().await?;
        let role = lab.worker().concurrency(10);
        let _fleet = [role.start().await, role.start().await, role.start().await];
        let [a, b] = [lab.tenant, lab.tenant().await?];
        lab.enqueue_for(a, (0..27).map(|_| play([Sleep(10_000)]))).await?;
        lab.sees("start", 27, SOON).await;
        lab.multiply(&play([Sleep(10_000)]), 100_000).await?;

        let mut waits = vec![];
        for _ in 0..40 {
            let job = lab.enqueue_for(b, [play([commit("b")])]).await?[0];
            lab.reaches(job, "succeeded", SOON).await;
            let sql = format!(
                "select extract(epoch from e.at - j.created_at)::float8 * 1000
             from jobs j join effects e on e.job_id = j.id where j.id = '{job}' and e.name = 'start'"
            );
            waits.extend(lab.durations(&sql).await);
        }
        let waits = Percentiles::of(waits);
        report!("B's single job beside A's 100,000: {waits}");
        assert!(lab.in_state("running").await > 20, "and A was using its share all the while");
        Ok(vec![waits])
    })
    .await
}

/// In order too: while both have jobs, neither waits for the other's backlog.
#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_share_a_queue_by_turns() -> Result<()> {
    let lab = Lab::new().await?;
    let b = lab.tenant().await?;
    lab.enqueue_many((0..5_000).map(|_| play([Sleep(5)]))).await?;
    lab.enqueue_for(b, (0..200).map(|_| play([Sleep(5), note("b")]))).await?;
    let _worker = lab.worker().concurrency(10).start().await;
    lab.sees("b", 200, LATER).await;
    let started = lab.effects_named("start").await;
    assert!(started < 1_000, "{started} of both had started when B's 200 were done");
    Ok(())
}

/// A hundred priorities are worth a hundred minutes of waiting, not eternity.
#[tokio::test(flavor = "multi_thread")]
async fn priority_goes_first_and_age_wins_in_the_end() -> Result<()> {
    let lab = Lab::new().await?;
    assert_eq!(Play::QUEUE, "lab");
    let low = lab.enqueue_at_priority(-10, play([])).await?;
    let high = lab.enqueue_at_priority(10, play([])).await?;
    let aged = lab.enqueue_at_priority(0, play([])).await?;
    lab.execute(&format!("update jobs set order_at = order_at - interval '1 hour' where id = '{aged}'"))
        .await?;
    let _worker = lab.worker().concurrency(2).start().await;
    lab.settles(SOON).await;
    let order: Vec<uuid::Uuid> =
        sqlx::query_scalar("select job_id from effects where name = 'start' order by seq")
            .fetch_all(&lab.pool)
            .await?;
    assert_eq!(order, [aged.0, high.0, low.0]);
    Ok(())
}

/// A worker of short jobs claims ahead of its slots. When its jobs turn long, what it claimed and
/// cannot start goes to whoever can, as if it had never been claimed.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_claimed_ahead_do_not_wait_for_long_ones() -> Result<()> {
    let lab = Lab::new().await?;
    let _busy = lab.worker().concurrency(3).named("busy").start().await;
    // Its pace is known now: it claims dozens ahead, and the long ones come in the middle.
    lab.enqueue_many((0..300).map(|_| play([]))).await?;
    lab.enqueue_many((0..3).map(|_| play([Sleep(5_000)]))).await?;
    let behind = lab.enqueue_many((0..30).map(|_| play([note("behind")]))).await?;
    lab.sees_number(
        "select count(*) from jobs where state = 'running' and args::text like '%sleep%'",
        2,
        SOON,
    )
    .await;
    let _idle = lab.worker().concurrency(10).named("idle").start().await;
    lab.sees("behind", 30, ms(3_000)).await;
    for job in behind {
        assert_eq!(lab.reaches(job, "succeeded", SOON).await.attempt, 1, "going back costs no attempt");
    }
    Ok(())
}
