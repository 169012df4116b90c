//! Depths, ages and statistics.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use streamspace_common::{Actor, BootId, TenantId, telemetry};
use streamspace_queue::{
    Attempt, Backoff, Done, Failure, Job, Options, Registry, Request, control, depth,
    inspect::{self, Scope},
};
use streamspace_testkit::eventually;
use tokio::sync::Notify;

use crate::bed::{Bed, SOON, What, act, effect, quick};

#[tokio::test(flavor = "multi_thread")]
async fn depths_are_what_is_there() {
    let bed = Bed::new().await;
    let other = TenantId::new();
    for _ in 0..3 {
        bed.enqueue(act(What::Nothing)).await;
    }
    bed.enqueue_as(other, act(What::Nothing), Options::default()).await;
    let later = Options { delay: Some(Duration::from_secs(60)), ..Options::default() };
    bed.enqueue_with(act(What::Nothing), later).await;
    let elsewhere = Options { queue: Some("elsewhere".into()), ..Options::default() };
    bed.enqueue_with(act(What::Nothing), elsewhere).await;
    bed.execute(
        "update jobs set run_at = run_at - interval '90 s' where state = 'queued' and queue = 'test'",
    )
    .await;

    let mut conn = bed.queue.read().await.expect("a connection");
    depth::recount(&mut conn).await.expect("counted");
    let mut depths = depth::depths(&mut conn).await.expect("read");
    depths.sort_by(|a, b| a.queue.cmp(&b.queue));
    let waiting: Vec<_> = depths.iter().map(|depth| (depth.queue.as_str(), depth.waiting)).collect();
    assert_eq!(waiting, [("elsewhere", 1), ("test", 4)]);
    assert!((90.0..100.0).contains(&depths[1].oldest_age_seconds), "{depths:?}");

    let stats = inspect::stats(&mut conn, Scope::Tenant(bed.tenant)).await.expect("read");
    let test = stats.queues.iter().find(|queue| queue.queue == "test").expect("the queue");
    assert_eq!((test.queued, test.delayed, test.running), (3, 1, 0));
    assert_eq!(stats.finished.of, 5);

    // What is gone is gone at the next count, however it went.
    bed.execute("delete from jobs").await;
    depth::recount(&mut conn).await.expect("counted");
    assert_eq!(depth::depths(&mut conn).await.expect("read"), []);
}

/// More workers would not help it, and nobody is to be alarmed.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_suspended_tenant_has_is_no_depth() {
    let _ = telemetry::metrics();
    let bed = Bed::new().await;
    let options = || Options { queue: Some("suspended".into()), ..Options::default() };
    let other = TenantId::new();
    bed.enqueue_with(act(What::Nothing), options()).await;
    bed.enqueue_with(act(What::Nothing), options()).await;
    bed.execute("update jobs set run_at = run_at - interval '90 s'").await;
    bed.enqueue_as(other, act(What::Nothing), options()).await;
    let exported = async || {
        let mut conn = bed.queue.read().await.expect("a connection");
        depth::recount(&mut conn).await.expect("counted");
        depth::export(&mut BTreeSet::new(), &depth::depths(&mut conn).await.expect("read"));
        let gauge = |name: &str| -> f64 {
            let name = format!(r#"{name}{{queue="suspended"}} "#);
            let text = telemetry::metrics().render();
            let value = text.lines().find_map(|line| line.strip_prefix(&name)).expect("it is exported");
            value.parse().expect("a number")
        };
        (gauge("streamspace_queue_depth"), gauge("streamspace_oldest_age_seconds"))
    };
    let (depth, age) = exported().await;
    assert!(depth == 3.0 && age >= 90.0, "{depth} {age}");
    bed.set_active(bed.tenant, false).await;
    let (depth, age) = exported().await;
    assert!(depth == 1.0 && age < 60.0, "{depth} {age}");
    bed.set_active(other, false).await;
    assert_eq!(exported().await, (0.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_counts_until_it_gives_up_or_falls_silent() {
    let bed = Bed::new().await;
    let (first, second) = (BootId::new(), BootId::new());
    let lease = Duration::from_secs(8);
    let mut conn = bed.queue.read().await.expect("a connection");
    assert!(depth::hold(&mut conn, depth::DUTY, first, lease).await.expect("asked"));
    assert!(!depth::hold(&mut conn, depth::DUTY, second, lease).await.expect("asked"));
    assert!(depth::hold(&mut conn, depth::DUTY, first, lease).await.expect("asked"));

    bed.execute("update leases set until = now() - interval '1 s'").await;
    assert!(depth::hold(&mut conn, depth::DUTY, second, lease).await.expect("asked"));
    // The database's clock was an hour ahead when the lease was taken.
    bed.execute("update leases set until = now() + interval '1 h'").await;
    assert!(depth::hold(&mut conn, depth::DUTY, first, lease).await.expect("asked"));

    depth::release(&mut conn, depth::DUTY, second).await.expect("released");
    assert!(!depth::hold(&mut conn, depth::DUTY, second, lease).await.expect("asked"), "it was not its own");
    depth::release(&mut conn, depth::DUTY, first).await.expect("released");
    assert!(depth::hold(&mut conn, depth::DUTY, second, lease).await.expect("asked"));
}

/// Says one thing, and that it is done when it is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Counted {
    Done,
    Retry,
    Permanent,
    Snooze,
    Park,
    ParkLate,
    Outage,
    Linger,
}

impl Job for Counted {
    const KIND: &'static str = "test.counted";
    const QUEUE: &'static str = "test";
    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(5), cap: Duration::from_millis(20) };
    type Ctx = ();

    async fn run(self, (): &(), attempt: &Attempt) -> Result<Done, Failure> {
        if attempt.checkpoint::<bool>().is_some() {
            return Ok(Done::nothing());
        }
        attempt.set_checkpoint(true).await?;
        effect(attempt, "start").await?;
        match self {
            Self::Done => Ok(Done::nothing()),
            Self::Retry => Err(Failure::retry("again")),
            Self::Permanent => Err(Failure::permanent("never")),
            Self::Snooze => Err(Failure::Snooze(Duration::from_millis(5))),
            Self::Park => Err(Failure::Park { event: "e".into(), timeout: Duration::from_millis(20) }),
            Self::ParkLate => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Err(Failure::Park { event: "e".into(), timeout: Duration::from_secs(60) })
            }
            Self::Outage => Err(Failure::Outage),
            Self::Linger => {
                attempt.cancel.cancelled().await;
                Err(Failure::Cancelled)
            }
        }
    }
}

/// Ends of attempts, by what became of their jobs.
fn ends(kind: &str) -> BTreeMap<String, u64> {
    let text = telemetry::metrics().render();
    let of_kind = text.lines().filter_map(|line| line.strip_prefix("streamspace_jobs_total{"));
    let of_kind = of_kind.filter(|line| line.contains(&format!(r#"kind="{kind}""#)));
    let end = |line: &str| {
        let (_, outcome) = line.split_once(r#"outcome=""#)?;
        let (outcome, number) = outcome.split_once('"')?;
        Some((outcome.to_owned(), number.rsplit(' ').next()?.parse().ok()?))
    };
    of_kind.filter_map(end).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_counted_as_what_became_of_the_job() {
    let _ = telemetry::metrics();
    let bed = Bed::new().await;
    let once = Options { max_attempts: Some(1), ..Options::default() };
    let outage = bed.enqueue_with(Counted::Outage, once).await.id;
    // One more is too many.
    bed.execute(
        "update jobs set errors = (select jsonb_agg(jsonb_build_object('kind', 'outage')) from generate_series(1, 10))",
    )
    .await;
    let worker = bed.worker_of(bed.queue.clone(), Registry::new().register::<Counted>(Arc::new(())), quick());
    bed.becomes(outage, "failed").await;
    for (job, state) in [
        (Counted::Done, "succeeded"),
        (Counted::Retry, "succeeded"),
        (Counted::Permanent, "failed"),
        (Counted::Snooze, "succeeded"),
        (Counted::Park, "succeeded"),
    ] {
        let id = bed.enqueue(job).await;
        bed.becomes(id, state).await;
    }
    // The last is cancelled while it parks.
    for job in [Counted::Linger, Counted::ParkLate] {
        let id = bed.enqueue(job).await;
        eventually(SOON, "it has begun", async || (!bed.effects(id).await.is_empty()).then_some(())).await;
        let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
        control::cancel(&mut tx, Scope::Tenant(bed.tenant), id).await.expect("cancelled");
        if job == Counted::ParkLate {
            bed.sees_waiting("%insert into job_events%").await;
        }
        tx.commit().await.expect("committed");
        bed.becomes(id, "cancelled").await;
    }
    let expected =
        [("cancelled", 2), ("failed", 2), ("parked", 1), ("retried", 1), ("snoozed", 1), ("succeeded", 4)];
    let expected: BTreeMap<_, _> = expected.map(|(outcome, number)| (outcome.to_owned(), number)).into();
    eventually(SOON, format!("{expected:?} are counted"), async || {
        (ends(Counted::KIND) == expected).then_some(())
    })
    .await;
    worker.stop().await;
}

/// Is done when the test says so.
#[derive(Serialize, Deserialize)]
struct Overtaken;

impl Job for Overtaken {
    const KIND: &'static str = "test.overtaken";
    const QUEUE: &'static str = "test";
    type Ctx = Notify;

    async fn run(self, done: &Notify, attempt: &Attempt) -> Result<Done, Failure> {
        effect(attempt, "start").await?;
        done.notified().await;
        Ok(Done::nothing())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_that_comes_too_late_is_none() {
    let _ = telemetry::metrics();
    let bed = Bed::new().await;
    let done = Arc::new(Notify::new());
    let worker =
        bed.worker_of(bed.queue.clone(), Registry::new().register::<Overtaken>(done.clone()), quick());
    let late = bed.enqueue(Overtaken).await;
    bed.has_begun(late).await;
    bed.execute(
        "update jobs set fence = fence + 1, state = 'cancelled', finished_at = now(), boot_id = null",
    )
    .await;
    done.notify_one();
    // What it says is written before the end of the next.
    let running = "select sum(running)::bigint from workers";
    eventually(SOON, "it has ended", async || (bed.number(running).await == 0).then_some(())).await;
    assert_eq!(ends(Overtaken::KIND), BTreeMap::new());
    let next = bed.enqueue(Overtaken).await;
    done.notify_one();
    bed.becomes(next, "succeeded").await;
    let once = BTreeMap::from([("succeeded".to_owned(), 1)]);
    eventually(SOON, "one is counted", async || (!ends(Overtaken::KIND).is_empty()).then_some(())).await;
    assert_eq!(ends(Overtaken::KIND), once);
    assert_eq!(bed.state(late).await, "cancelled");
    worker.stop().await;
}
