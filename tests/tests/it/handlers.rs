//! A handler may do anything: the worker lives, the job is told, the slot is accounted for.

use anyhow::Result;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_an_error_of_that_job_and_of_nothing_else() -> Result<()> {
    let lab = Lab::new().await?;
    let worker = lab.worker().start().await;
    let once = lab.enqueue(play([Panic.first(), commit("effect")])).await?;
    let always = lab.enqueue(Brief(Script::of([Panic]))).await?;
    let row = lab.reaches(once, "succeeded", SOON).await;
    assert_eq!(row.attempt, 2);
    assert!(row.complaints().contains("as the script says"), "{row:?}");
    assert_eq!(lab.reaches(always, "failed", SOON).await.attempt, 2, "all attempts are used");
    assert!(worker.status().is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_retried_until_attempts_are_used_and_a_permanent_one_is_not() -> Result<()> {
    let lab = Lab::new().await?;
    let _worker = lab.worker().start().await;
    let recovers = lab.enqueue(play([Retry.in_first(3), commit("effect")])).await?;
    let never = lab.enqueue(Brief(Script::of([Retry]))).await?;
    let hopeless = lab.enqueue(play([Fail])).await?;
    assert_eq!(lab.reaches(recovers, "succeeded", SOON).await.attempt, 4);
    assert_eq!(lab.reaches(never, "failed", SOON).await.attempt, 2);
    assert_eq!(lab.reaches(hopeless, "failed", SOON).await.attempt, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn snoozing_and_parking_burn_no_attempt() -> Result<()> {
    let lab = Lab::new().await?;
    let _worker = lab.worker().start().await;
    let snoozes = lab.enqueue(play([Snooze(50).in_first(10), commit("effect")])).await?;
    let parks = lab.enqueue(play([Park("never".into(), 200).first(), commit("effect")])).await?;
    let woken = lab.enqueue(play([Park("it happened".into(), 60_000).first(), commit("effect")])).await?;
    assert_eq!(lab.reaches(snoozes, "succeeded", SOON).await.attempt, 1);
    assert_eq!(lab.reaches(parks, "succeeded", SOON).await.attempt, 1);
    lab.reaches(woken, "parked", SOON).await;
    lab.happened("it happened").await?;
    assert_eq!(lab.reaches(woken, "succeeded", SOON).await.attempt, 1);
    lab.once_each("effect", 3).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_of_2_mib_is_dropped_with_a_warning_and_the_outcome_kept() -> Result<()> {
    let lab = Lab::new().await?;
    let _worker = lab.worker().start().await;
    let large = lab.enqueue(play([Answer(2 << 20)])).await?;
    let small = lab.enqueue(play([Answer(60_000)])).await?;
    let row = lab.reaches(large, "succeeded", SOON).await;
    assert_eq!((row.result, row.attempt), (None, 1));
    assert!(
        row.warning.is_some_and(|warning| warning.contains("2097154 bytes")),
        "the warning says how large it was"
    );
    let row = lab.reaches(small, "succeeded", SOON).await;
    assert!(row.result.is_some() && row.warning.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_never_ends_is_stopped_at_its_timeout() -> Result<()> {
    let lab = Lab::new().await?;
    let _worker = lab.worker().start().await;
    let obeys = lab.enqueue(Brief(Script::of([Sleep(60_000).first(), commit("effect")]))).await?;
    let deaf = lab.enqueue(Brief(Script::of([Deaf(60_000).first(), commit("effect")]))).await?;
    for job in [obeys, deaf] {
        let row = lab.reaches(job, "succeeded", SOON).await;
        assert_eq!(row.attempt, 2);
        assert!(row.complaints().contains("timeout") || row.complaints().contains("timed out"), "{row:?}");
    }
    lab.once_each("effect", 2).await;
    Ok(())
}

/// Blocked threads can be neither cancelled nor dropped. While three of four are, others go on.
#[tokio::test(flavor = "multi_thread")]
async fn blocked_threads_stop_neither_the_lease_nor_other_jobs() -> Result<()> {
    let lab = Lab::new().await?;
    let worker = lab.worker().concurrency(20).threads(4).start().await;
    let blocked = lab.enqueue_many((0..3).map(|_| play([Block(6_000), commit("blocked")]))).await?;
    lab.sees("start", 3, SOON).await;
    let others = lab.enqueue_many((0..50).map(|_| play([commit("effect")]))).await?;
    lab.sees("effect", 50, ms(4_000)).await;
    assert_eq!(lab.effects_named("blocked").await, 0, "they went on beside the blocked ones");
    for job in blocked.into_iter().chain(others) {
        assert_eq!(lab.reaches(job, "succeeded", SOON).await.attempt, 1, "no lease was lost");
    }
    assert!(worker.status().is_none());
    Ok(())
}

/// With every thread of the handlers blocked for two leases, the process still says that it lives.
#[tokio::test(flavor = "multi_thread")]
async fn even_all_threads_blocked_lose_no_lease() -> Result<()> {
    let lab = Lab::new().await?;
    let worker = lab.worker().threads(1).named("blocked").start().await;
    let job = lab.enqueue(play([Block(7_000), commit("effect")])).await?;
    lab.sees("start", 1, SOON).await;
    let _idle = lab.worker().named("idle").start().await;
    let ended = lab.reaches(job, "succeeded", LATER).await;
    assert_eq!(ended.attempt, 1, "{ended:?}\n{}", worker.output());
    lab.once_each("effect", 1).await;
    Ok(())
}

/// What was abandoned and ended after all is no longer held against the process.
#[tokio::test(flavor = "multi_thread")]
async fn abandoned_handlers_are_forgotten_when_they_end() -> Result<()> {
    let lab = Lab::new().await?;
    let worker = lab.worker().concurrency(10).threads(8).start().await;
    for round in 1..=3 {
        lab.enqueue_many((0..4).map(|_| Brief(Script::of([Block(3_500).first(), commit("effect")])))).await?;
        lab.sees_number("select max(abandoned) from workers", 1, SOON).await;
        lab.sees("effect", round * 4, SOON).await;
        eventually(SOON, "none is counted any more", async || {
            (lab.number("select max(abandoned) from workers").await == 0).then_some(())
        })
        .await;
    }
    assert!(worker.status().is_none(), "twelve in all, but never eight at once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_ignores_its_cancellation_is_abandoned_and_the_job_says_so() -> Result<()> {
    let lab = Lab::new().await?;
    let worker = lab.worker().start().await;
    let job = lab.enqueue(Brief(Script::of([Block(3_000), note("ended at last")]))).await?;
    lab.sees("start", 1, SOON).await;
    lab.cancel(job).await?;
    // Cancelled before its thread came back: it was given half a second.
    let row = lab.reaches(job, "cancelled", ms(2_500)).await;
    assert!(row.warning.is_some_and(|warning| warning.contains("abandoned")), "the job says so");
    assert_eq!(lab.effects_named("ended at last").await, 0);
    assert!(worker.status().is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_eight_abandoned_tasks_drains_and_exits() -> Result<()> {
    let lab = Lab::new().await?;
    let worker = lab.worker().concurrency(30).threads(16).patience(ms(500)).start().await;
    lab.enqueue_many((0..8).map(|_| Brief(Script::of([Block(120_000).first(), commit("effect")])))).await?;
    let status = worker.exited(LATER).await;
    assert_eq!(status.code(), Some(3), "whoever started it learns why: {}", worker.output());
    let _next = lab.worker().concurrency(30).start().await;
    lab.settles(LATER).await;
    lab.once_each("effect", 8).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_and_progress_survive_into_the_next_attempt() -> Result<()> {
    let lab = Lab::new().await?;
    let first = lab.worker().start().await;
    let job =
        lab.enqueue(play([Checkpoint(41), Progress(30), Sleep(60_000).first(), commit("effect")])).await?;
    eventually(SOON, "the progress is written", async || lab.job(job).await.progress).await;
    first.kill9().await;
    let _second = lab.worker().start().await;
    lab.reaches(job, "succeeded", LEASE + SOON).await;
    let effects = lab.effects(job).await;
    assert_eq!(effects, ["start", "checkpoint None", "start", "checkpoint Some(41)", "effect"]);
    Ok(())
}
