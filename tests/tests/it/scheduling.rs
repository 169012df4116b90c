//! Any number of schedulers: no tick fires twice, none is lost, whatever the clocks of hosts say.

use anyhow::Result;
use streamspace_queue::Job as _;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_schedulers_fire_500_times_once_each_while_one_is_killed_again_and_again() -> Result<()> {
    let lab = Lab::new().await?;
    let role = lab.scheduler();
    let (_steady, mut mortal) = (role.start().await, role.start().await);
    for n in 0..50 {
        every(&lab, &format!("schedule {n}"), ms(1_000)).await?;
    }
    let mut deaths = 0;
    let mut dies_at = 40;
    eventually(LATER, "500 times have fired", async || {
        let fires = lab.number("select count(*) from job_fires where outcome = 'fired'").await;
        if fires >= dies_at {
            mortal.kill9().await;
            mortal = role.spawn();
            deaths += 1;
            dies_at = fires + 40;
        }
        (fires >= 500).then_some(())
    })
    .await;
    lab.execute("update schedules set paused = true").await?;
    drop(mortal);

    let fires = lab.number("select count(*) from job_fires where outcome = 'fired'").await;
    assert!(deaths >= 5, "{deaths}");
    assert_eq!(
        lab.number("select count(*) from jobs where creator_type = 'schedule'").await,
        fires,
        "one job a fire"
    );
    assert_eq!(
        lab.number("select count(distinct job_id) from job_fires").await,
        fires,
        "and none serves two"
    );
    assert_eq!(lab.number(GAPS).await, 0, "the ticks of each schedule follow each other without a gap");
    assert_eq!(lab.number("select sum(missed_count) from schedules").await, 0);
    report!("{fires} fire times, one job each, through {deaths} deaths of a scheduler");
    Ok(())
}

/// Fire times that do not follow their predecessor at the schedule's interval.
const GAPS: &str = "
    select count(*) from (
        select f.fire_at - lag(f.fire_at) over (partition by f.schedule_id order by f.fire_at) as step,
               s.every_ms * interval '1 ms' as every
        from job_fires f join schedules s on s.id = f.schedule_id) t
    where step is not null and step <> every";

/// The hosts' clocks jump an hour back and an hour forth; only the database's time counts.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_host_clocks_start_nothing_early_twice_or_never_and_lose_no_lease() -> Result<()> {
    let lab = Lab::new().await?;
    let clock = HostClock::new()?;
    let _worker = lab.worker().concurrency(60).clock(&clock).start().await;
    let _scheduler = lab.scheduler().clock(&clock).start().await;
    every(&lab, "steady", ms(1_000)).await?;
    let long = lab.enqueue_many((0..20).map(|_| play([Sleep(7_000), commit("long")]))).await?;
    for i in 0..20 {
        lab.enqueue_in(ms(500 + 300 * i), play([commit("delayed")])).await?;
    }
    let fired = "select count(*) from job_fires where outcome = 'fired'";
    for (jump, fires) in [(-3600, 2), (3600, 4), (0, 6)] {
        lab.sees_number(fired, fires, SOON).await;
        clock.jump(jump)?;
    }
    lab.sees_number(fired, 9, SOON).await;
    lab.execute("update schedules set paused = true").await?;
    lab.settles(LATER).await;

    lab.once_each("long", 20).await;
    lab.once_each("delayed", 20).await;
    for job in long {
        assert_eq!(lab.job(job).await.attempt, 1, "its lease was never lost");
    }
    let early = "select count(*) from effects e join jobs j on j.id = e.job_id where e.name = 'start' and e.at < j.run_at";
    assert_eq!(lab.number(early).await, 0, "nothing starts early");
    let late = lab
        .durations(
            "select extract(epoch from e.at - j.run_at)::float8 * 1000
             from effects e join jobs j on j.id = e.job_id where e.name = 'delayed'",
        )
        .await;
    let late = Percentiles::of(late);
    assert!(late.max() < ms(1_500), "nor late: {late}");
    assert_eq!(lab.number(GAPS).await, 0, "no tick is lost or added");
    let fires = lab.number(fired).await;
    assert_eq!(lab.number("select count(*) from jobs where creator_type = 'schedule'").await, fires);
    Ok(())
}

/// Nobody was there for months, or a backup is that old.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_makes_the_months_that_it_finds_missing_and_fires() -> Result<()> {
    let lab = Lab::new().await?;
    lab.execute(
        "do $$ declare part regclass; begin
           for part in select inhrelid from pg_inherits where inhparent in ('job_fires'::regclass, 'audit'::regclass) loop
             execute format('drop table %s', part);
           end loop;
         end $$",
    )
    .await?;
    every(&lab, "steady", ms(1_000)).await?;
    // Somebody reads for long: that holds up neither readers nor, for more than a moment, writers.
    let mut report = lab.pool.begin().await?;
    sqlx::query("select count(*) from audit").execute(&mut *report).await?;
    let role = lab.scheduler();
    let _schedulers = (role.start().await, role.start().await);
    tokio::time::sleep(ms(2_000)).await;
    assert_eq!(lab.number("select count(*) from job_fires").await, 0);
    report.rollback().await?;
    lab.sees_number("select count(*) from job_fires where outcome = 'fired'", 3, LATER).await;
    assert_eq!(lab.number(GAPS).await, 0, "what could not be fired is caught up");
    assert!(lab.number("select count(*) from pg_inherits where inhparent = 'audit'::regclass").await >= 3);
    Ok(())
}

/// A schedule whose jobs do nothing, from now on.
async fn every(lab: &Lab, name: &str, interval: Duration) -> Result<()> {
    sqlx::query(
        "insert into schedules (id, tenant_id, name, kind, args, every_ms, catch_up, overlap, built_in,
                                next_at, fire_at, creator_type, created_at, updated_at)
         select gen_random_uuid(), $1, $2, $3, $4, $5, 'all', 'allow', false, t, t, 'system', t, t
         from (select date_trunc('second', queue.now()) + interval '1 s' as t) s",
    )
    .bind(lab.tenant)
    .bind(name)
    .bind(Play::KIND)
    .bind(serde_json::to_value(Script::idle())?)
    .bind(i64::try_from(interval.as_millis())?)
    .execute(&lab.pool)
    .await?;
    Ok(())
}
