//! A worker may die at any instant: no job is lost, and no effect happens twice.

use anyhow::Result;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_200_jobs_are_resumed_within_a_lease() -> Result<()> {
    let lab = Lab::quiet().await?;
    let victim = lab.worker().concurrency(250).named("victim").start().await;
    let jobs = lab.enqueue_many((0..200).map(|_| play([Sleep(60_000).first(), commit("effect")]))).await?;
    lab.sees("start", 200, SOON).await;
    // It has been idle all the while, and takes over.
    let _heir = lab.worker().concurrency(250).named("heir").start().await;
    lab.execute("create table killed as select clock_timestamp() as at").await?;
    victim.kill9().await;

    lab.settles(LATER).await;
    lab.once_each("effect", 200).await;
    let resumed = lab
        .durations("select extract(epoch from e.at - k.at)::float8 * 1000 from effects e, killed k where name = 'start' and e.at > k.at")
        .await;
    assert_eq!(resumed.len(), jobs.len(), "each is run again once");
    let resumed = Percentiles::of(resumed);
    report!("200 jobs of a killed worker resumed: {resumed}");
    assert!(resumed.max() < LEASE + ms(1500), "{resumed}");
    Ok(())
}

/// Each of 200 jobs kills its process right after its effect is committed, and before anything else
/// can be said about it: half of them in a step, half in the commit that completes the job.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_commit_and_acknowledgement_200_times() -> Result<()> {
    let lab = Lab::new().await?;
    lab.enqueue_many((0..200).map(|i| match i % 2 {
        0 => play([step("effect"), Die.first(), commit("end")]),
        _ => play([CommitAndDie("effect".into())]),
    }))
    .await?;
    // Five at a time, replaced when they die. A process that runs one job at a time loses only that.
    let role = lab.worker().concurrency(2);
    let mut fleet: Vec<Process> = (0..5).map(|_| role.spawn()).collect();
    let mut deaths = 0;
    eventually(Duration::from_secs(150), "200 jobs survive 200 deaths", async || {
        for worker in &mut fleet {
            if worker.status().is_some() {
                deaths += 1;
                *worker = role.spawn();
            }
        }
        (lab.in_state("succeeded").await == 200).then_some(())
    })
    .await;
    report!("{deaths} workers died between the commit of an effect and its acknowledgement");
    assert!(deaths >= 100, "jobs on the same worker may die together, but not all: {deaths}");
    lab.once_each("effect", 200).await;
    Ok(())
}

/// The first runner is killed in the middle, so is the one that rescued it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_survives_the_death_of_its_rescuer() -> Result<()> {
    let lab = Lab::new().await?;
    let job = lab.enqueue(play([step("before"), Sleep(60_000).in_first(2), commit("effect")])).await?;
    for run in 1..=2 {
        let worker = lab.worker().start().await;
        lab.sees("start", run, LEASE + SOON).await;
        lab.sees("before", 1, SOON).await;
        worker.kill9().await;
    }
    let _last = lab.worker().start().await;
    let row = lab.reaches(job, "succeeded", LEASE + SOON).await;
    assert_eq!(row.attempt, 3);
    assert_eq!(lab.effects(job).await, ["start", "before", "start", "start", "effect"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_under_load_burns_no_attempt() -> Result<()> {
    let lab = Lab::new().await?;
    let leaving = lab.worker().concurrency(50).patience(ms(1000)).named("leaving").start().await;
    // Of the first some finish within the limit, some are handed back and some do not care; the rest
    // is waiting.
    lab.enqueue_many((0..300).map(|i| match i % 3 {
        1 if i < 40 => play([Sleep(60_000).first(), commit("effect")]),
        2 if i < 40 => play([Deaf(60_000).first(), commit("effect")]),
        _ => play([Sleep(300), commit("effect")]),
    }))
    .await?;
    lab.sees("start", 45, SOON).await;
    leaving.term();
    let status = leaving.exited(SOON).await;
    assert!(status.success(), "{status}:\n{}", leaving.output());
    assert_eq!(lab.in_state("running").await, 0, "all that it had are handed back");

    let _next = lab.worker().concurrency(100).start().await;
    lab.settles(LATER).await;
    lab.once_each("effect", 300).await;
    assert_eq!(lab.number("select count(*) from jobs where attempt <> 1").await, 0, "no attempt is burned");
    Ok(())
}

/// Frozen for longer than its lease, a worker wakes up and says what it has to say about jobs that
/// others have finished since.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_workers_late_words_change_nothing_and_are_counted() -> Result<()> {
    let lab = Lab::new().await?;
    let frozen = lab.worker().concurrency(50).named("frozen").start().await;
    let late =
        [commit("effect"), step("effect"), Progress(7), Checkpoint(7), Answer(7), Fail, Snooze(1), Panic];
    let mut jobs = vec![];
    for last in late {
        jobs.push(lab.enqueue(play([Deaf(2000).first(), last.first(), commit("effect")])).await?);
    }
    lab.sees("start", 8, SOON).await;
    frozen.stop();
    let _heir = lab.worker().concurrency(50).named("heir").start().await;
    lab.settles(LEASE + SOON).await;
    let mut before = vec![];
    for job in &jobs {
        before.push(lab.job(*job).await);
    }

    frozen.cont();
    for fresh in lab.enqueue_many((0..20).map(|_| play([commit("fresh")]))).await? {
        assert_eq!(lab.reaches(fresh, "succeeded", SOON).await.attempt, 1, "the dead claim nothing");
    }
    holds_for(ms(2500), "nothing that the frozen worker says changes a job", async || {
        let mut same = true;
        for (job, before) in jobs.iter().zip(&before) {
            same &= lab.job(*job).await == *before;
        }
        same
    })
    .await;
    lab.once_each("effect", 8).await;
    let stale = metric(&frozen, "streamspace_stale_total").await;
    assert!(stale >= 8.0, "each of its late words is counted: {stale}");
    Ok(())
}

/// Taken for dead, it gets back the very job that its old attempt has not left yet. The old one must
/// not take the new one's place with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_gets_its_own_job_back_keeps_hold_of_it() -> Result<()> {
    let lab = Lab::new().await?;
    let frozen = lab.worker().concurrency(5).named("frozen").start().await;
    let job = lab.enqueue(play([Deaf(60_000).first(), UntilCancelled])).await?;
    lab.sees_start_of(job).await;
    lab.pause("lab").await?;
    frozen.stop();
    let rescuer = lab.worker().named("rescuer").start().await;
    lab.reaches(job, "queued", LEASE + SOON).await;
    rescuer.term();
    rescuer.exited(SOON).await;
    lab.resume("lab").await?;
    frozen.cont();
    lab.sees("start", 2, SOON).await;
    // The old attempt's grace is over, and strays were looked for.
    holds_for(ms(4_000), "it runs on", async || lab.job(job).await.state == "running").await;
    lab.cancel(job).await?;
    lab.reaches(job, "cancelled", ms(1_000)).await;
    assert_eq!(lab.effects_named("asked to stop").await, 1);
    Ok(())
}
