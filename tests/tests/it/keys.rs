//! Concurrency keys: never more than the limit, nothing leaks, nobody else pays.

use anyhow::Result;
use streamspace_common::JobId;

use crate::support::*;

fn keyed(moves: impl IntoIterator<Item = Move>) -> Play {
    Play(Script::of(moves).with_slot("session", 1))
}

/// From `start` to `end` each run has the key to itself, also against others of its own job.
const OVERLAPS: &str = "
    with runs as (
        select s.job_id, s.seq, s.at as started,
               coalesce((select min(e.at) from effects e where e.job_id = s.job_id and e.seq > s.seq
                         and e.name in ('end', 'killed', 'unblocked')), 'infinity') as ended
        from effects s where s.name = 'start')
    select a.job_id || ' from ' || a.started || ' to ' || a.ended || ' and '
        || b.job_id || ' from ' || b.started || ' to ' || b.ended
    from runs a join runs b on a.seq < b.seq
    where a.started < b.ended and b.started < a.ended";

async fn overlaps(lab: &Lab) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(OVERLAPS).fetch_all(&lab.pool).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn eleven_jobs_with_a_key_of_one_never_overlap() -> Result<()> {
    let lab = Lab::new().await?;
    let fleet = fleet_of_three(&lab).await;
    lab.enqueue_many((0..11).map(|_| keyed([Sleep(100), note("end")]))).await?;
    lab.settles(LATER).await;
    lab.once_each("end", 11).await;
    assert_eq!(overlaps(&lab).await?, [""; 0]);
    assert_eq!(lab.number("select count(*) from job_slots").await, 0, "nothing leaks");
    drop(fleet);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_they_through_kill_9_and_abandoned_handlers() -> Result<()> {
    let lab = Lab::new().await?;
    let mut fleet = fleet_of_three(&lab).await;
    let mut jobs: Vec<JobId> = vec![];
    for i in 0..11 {
        // Each third one is given up while its thread still runs, and may be repeated only then.
        let script = match i % 3 {
            0 => Script::of([Block(2_500).first(), note("end")]),
            _ => Script::of([Sleep(150), note("end")]),
        };
        let script = script.with_slot("session", 1);
        jobs.push(if i % 3 == 0 {
            lab.enqueue(Brief(script)).await?
        } else {
            lab.enqueue(Play(script)).await?
        });
    }
    for kills in 1..=3 {
        lab.sees("start", kills * 2, LATER).await;
        let holder = eventually(SOON, "one of them runs", async || lab.newest_runner().await).await;
        let victim = fleet.iter_mut().find(|worker| worker.pid() == holder).expect("a worker of this fleet");
        victim.kill9().await;
        // What it had started is over with it.
        lab.execute(&format!(
            "insert into effects (job_id, name, attempt, pid)
             select distinct job_id, 'killed', 0, 0 from effects s where pid = {holder} and name = 'start'
             and not exists (select from effects e where e.job_id = s.job_id and e.name = 'end' and e.seq > s.seq)"
        ))
        .await?;
        *victim = lab.worker().start().await;
    }
    lab.settles(LATER).await;
    assert_eq!(overlaps(&lab).await?, [""; 0]);
    eventually(SOON, "nothing leaks", async || {
        (lab.number("select count(*) from job_slots").await == 0).then_some(())
    })
    .await;
    assert_eq!(
        lab.number("select count(*) from jobs where state <> 'succeeded' and kind = 'lab.play'").await,
        0
    );
    Ok(())
}

/// Claims of other jobs do not see the blocked ones. Measured side by side, in turns, on two
/// databases of one server, so that whatever disturbs the machine disturbs both.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_blocked_rows_cost_others_nothing() -> Result<()> {
    if !long_test("a_hundred_thousand_blocked_rows_cost_others_nothing") {
        return Ok(());
    }
    let plain = Lab::quiet().await?;
    let crowded = plain.sibling().await?;
    let _workers =
        [plain.worker().concurrency(100).start().await, crowded.worker().concurrency(100).start().await];
    let holder = crowded.enqueue(keyed([UntilCancelled])).await?;
    crowded.sees_start_of(holder).await;
    crowded.enqueue_many((0..100_000).map(|_| keyed([]))).await?;
    eventually(LATER, "all are out of the way", async || {
        (crowded.in_state("queued").await == 0).then_some(())
    })
    .await;
    for lab in [&plain, &crowded] {
        lab.execute("vacuum analyze jobs").await?;
    }

    let mut ratios = vec![];
    for round in 0..9 {
        let mut order = [&plain, &crowded];
        if round % 2 == 1 {
            order.reverse();
        }
        let (first, second) = (time_of_idle_jobs(order[0]).await?, time_of_idle_jobs(order[1]).await?);
        let (plain, crowded) = if round % 2 == 1 { (second, first) } else { (first, second) };
        ratios.push(crowded.as_secs_f64() / plain.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    report!("time of others beside 100,000 blocked rows, relative: {ratios:.2?}");
    assert!(ratios[ratios.len() / 2] < 1.10, "{ratios:.2?}");
    Ok(())
}

async fn time_of_idle_jobs(lab: &Lab) -> Result<Duration> {
    let start = Instant::now();
    // Asked through partial indexes: what is blocked or over must not slow the question down.
    let open = "select (select count(*) from jobs where state = 'queued')
                     + (select count(*) from jobs where state = 'running')";
    let before = lab.number(open).await;
    lab.enqueue_many((0..3_000).map(|_| Play(Script::idle()))).await?;
    eventually(LATER, "they are done", async || (lab.number(open).await == before).then_some(())).await;
    Ok(start.elapsed())
}

async fn fleet_of_three(lab: &Lab) -> Vec<Process> {
    let role = lab.worker();
    vec![role.start().await, role.start().await, role.start().await]
}
