//! Cancel reaches a running job in another process, and its three moments are recorded.

use anyhow::Result;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_hears_of_it_within_100_ms() -> Result<()> {
    in_one_of_three_rounds(ms(100), async || {
    let lab = Lab::quiet().await?;
    let _one = lab.worker().concurrency(40).start().await;
    let _two = lab.worker().concurrency(40).start().await;
    let jobs = lab.enqueue_many((0..60).map(|_| play([UntilCancelled]))).await?;
    lab.sees("start", 60, SOON).await;
    for job in &jobs {
        lab.cancel(*job).await?;
        lab.reaches(*job, "cancelled", SOON).await;
    }
    let heard = lab
        .durations(
            "select extract(epoch from e.at - j.cancel_requested_at)::float8 * 1000
             from jobs j join effects e on e.job_id = j.id and e.name = 'asked to stop'",
        )
        .await;
    assert_eq!(heard.len(), jobs.len());
    let heard = Percentiles::of(heard);
    report!("cancel across processes, request to handler: {heard}");
    let unordered = "select count(*) from jobs where not
        (cancel_requested_at <= cancel_delivered_at and cancel_delivered_at <= cancel_stopped_at and cancel_stopped_at <= finished_at)
        is true";
    assert_eq!(lab.number(unordered).await, 0, "requested, delivered, stopped: in this order, none missing");
    Ok(vec![heard])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_is_cancelled_at_once_whatever_it_waits_for() -> Result<()> {
    let lab = Lab::new().await?;
    let worker = lab.worker().start().await;
    let parked = lab.enqueue(play([Park("never".into(), 60_000)])).await?;
    let snoozed = lab.enqueue(play([Snooze(60_000)])).await?;
    let holder = lab.enqueue(Play(Script::of([Sleep(60_000)]).with_slot("key", 1))).await?;
    lab.sees("start", 3, SOON).await;
    let blocked = lab.enqueue(Play(Script::of([]).with_slot("key", 1))).await?;
    let delayed = lab.enqueue_in(ms(60_000), play([])).await?;
    lab.reaches(parked, "parked", SOON).await;
    lab.reaches(snoozed, "snoozed", SOON).await;
    lab.reaches(blocked, "blocked", SOON).await;
    drop(worker);
    let queued = lab.enqueue(play([])).await?;
    for (job, state) in [
        (parked, "parked"),
        (snoozed, "snoozed"),
        (blocked, "blocked"),
        (delayed, "scheduled"),
        (queued, "queued"),
    ] {
        assert_eq!(lab.job(job).await.state, state);
        lab.cancel(job).await?;
        assert_eq!(lab.job(job).await.state, "cancelled", "a {state} job");
    }
    // And none of them comes back to life.
    let _next = lab.worker().start().await;
    lab.cancel(holder).await?;
    lab.reaches(holder, "cancelled", LEASE + SOON).await;
    lab.settles(SOON).await;
    assert_eq!(lab.in_state("cancelled").await, 6);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_finished_job_changes_nothing() -> Result<()> {
    let lab = Lab::new().await?;
    let _worker = lab.worker().start().await;
    let job = lab.enqueue(play([commit("effect")])).await?;
    let before = lab.reaches(job, "succeeded", SOON).await;
    lab.cancel(job).await?;
    assert_eq!(lab.job(job).await, before);
    Ok(())
}

/// The request races with every kind of end: whoever wins, the job is over soon.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_meets_the_end_of_an_attempt_is_not_lost() -> Result<()> {
    let lab = Lab::new().await?;
    let _worker = lab.worker().concurrency(60).start().await;
    let ends = [commit("effect"), Retry, Snooze(200), Park("never".into(), 60_000), Answer(1)];
    let jobs = lab
        .enqueue_many((0..200).map(|i| play([Deaf(400), ends[i % ends.len()].clone(), Deaf(60_000)])))
        .await?;
    for job in jobs {
        lab.sees_start_of(job).await;
        lab.cancel(job).await?;
    }
    lab.settles(LATER).await;
    Ok(())
}
