//! Concurrency keys and unique keys.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamspace_common::{Actor, JobId};
use streamspace_queue::{
    Attempt, Done, Failure, Job, Options, Registry, Request, Unique, WorkerOptions,
    control::{self, ControlError},
    enqueue,
    inspect::Scope,
};
use streamspace_testkit::{eventually, holds_for};

use crate::bed::{Act, Bed, OVERLAP, SOON, What, act, quick};

fn keyed(ms: u64, limit: i16) -> Act {
    Act { slots: vec![("k".into(), limit)], ..act(What::Wait(ms)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_run_than_the_key_allows() {
    for limit in [1, 3] {
        let bed = Bed::new().await;
        let first = bed.worker();
        let other = bed.another_queue(streamspace_queue::Release(1));
        let second = bed.worker_of(other, crate::bed::registry(), quick());
        for _ in 0..11 {
            bed.enqueue(keyed(40, limit)).await;
        }
        eventually(Duration::from_secs(15), "all are done", async || {
            (bed.number("select count(*) from jobs where state = 'succeeded'").await == 11).then_some(())
        })
        .await;
        assert_eq!(bed.number(OVERLAP).await, i64::from(limit));
        assert_eq!(bed.number("select count(*) from job_slots").await, 0);
        assert_eq!(bed.number("select count(*) from jobs where attempt <> 1").await, 0);
        first.stop().await;
        second.stop().await;
    }
}

/// A worker that lost a claim looks for its jobs; one that it is about to start is not among them.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_long_for_its_slot_starts_once() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let first = bed.enqueue(act(What::Nothing)).await;
    bed.becomes(first, "succeeded").await;
    bed.slow_slots().await;
    let claimers = "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity
                    where datname = current_database() and query like 'with picked as%'";
    assert_eq!(bed.number(claimers).await, 1);
    // The claim fails, and is made again.
    let job = bed.enqueue(keyed(40, 1)).await;
    bed.becomes(job, "running").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(bed.effects(job).await.is_empty(), "it still waits for its slot");
    assert_eq!(bed.number("select fence from jobs where state = 'running'").await, 1, "nobody took it back");
    bed.becomes(job, "succeeded").await;
    assert_eq!(bed.effects(job).await, ["start", "end"]);
    assert_eq!(bed.number("select count(*) from job_slots").await, 0);
    worker.stop().await;
}

/// Its worker was taken for dead while it waited for its slot: the job is another attempt's by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_slot_comes_too_late_runs_once() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    bed.slow_slots().await;
    let job = bed.enqueue(keyed(40, 1)).await;
    // Now it waits for the slot; what it sees of the job does not change any more.
    bed.sees_waiting("%insert into job_slots%").await;
    bed.execute("delete from workers").await;
    eventually(SOON, "the worker is another, and has rescued the job", async || {
        let done = "select count(*) from workers, jobs where fence = 2";
        (bed.number(done).await == 1).then_some(())
    })
    .await;
    bed.becomes(job, "succeeded").await;
    assert_eq!(bed.effects(job).await, ["start", "end"]);
    worker.stop().await;
    assert_eq!(bed.number("select count(*) from job_slots").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_are_taken_together_or_not_at_all() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    for n in 0..8 {
        let slots = vec![(format!("repository-{}", n % 2), 1), ("host".to_owned(), 3)];
        bed.enqueue(Act { slots, ..act(What::Wait(30)) }).await;
    }
    eventually(Duration::from_secs(15), "all are done", async || {
        (bed.number("select count(*) from jobs where state = 'succeeded'").await == 8).then_some(())
    })
    .await;
    assert_eq!(bed.number(OVERLAP).await, 2);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_enqueued_behind_a_taken_key_waits_blocked() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let holder = bed.enqueue(keyed(600, 1)).await;
    // Claimed is not enough: the slot is taken a moment later.
    eventually(Duration::from_secs(5), "the holder runs", async || {
        (!bed.effects(holder).await.is_empty()).then_some(())
    })
    .await;
    let next = bed.enqueue(keyed(10, 1)).await;
    assert_eq!(bed.state(next).await, "blocked");
    bed.becomes(next, "succeeded").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unique_key_returns_the_job_that_holds_it() {
    let bed = Bed::new().await;
    let job = Act { unique: Some("u".into()), ..act(What::Nothing) };
    let first = bed.enqueue_with(job.clone(), Options::default()).await;
    let second = bed.enqueue_with(job.clone(), Options::default()).await;
    assert_eq!((first.id, false, true), (second.id, first.duplicate, second.duplicate));
    let worker = bed.worker();
    bed.becomes(first.id, "succeeded").await;
    let third = bed.enqueue_with(job, Options::default()).await;
    assert!(!third.duplicate);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_while_waiting_allows_one_behind_the_running_one() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let job = Act { unique: Some("u".into()), unique_while_waiting: true, ..act(What::Wait(500)) };
    let first = bed.enqueue_with(job.clone(), Options::default()).await;
    bed.becomes(first.id, "running").await;
    let second =
        bed.enqueue_with(job, Options { delay: Some(Duration::from_secs(9)), ..Options::default() }).await;
    assert!(!second.duplicate);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_before_a_duplicate_is_seen_by_the_job_that_waits() {
    let bed = Bed::new().await;
    let job = Act { unique: Some("u".into()), unique_while_waiting: true, ..act(What::Nothing) };
    let first = bed.enqueue(job.clone()).await;
    let mut open = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    let second = enqueue(&mut open, job.clone()).await.expect("enqueued");
    assert_eq!((second.id, second.duplicate), (first, true));
    let worker = bed.worker();
    let other = bed.enqueue(act(What::Nothing)).await;
    bed.becomes(other, "succeeded").await;
    holds_for(Duration::from_millis(500), "it waits", async || bed.state(first).await == "queued").await;
    open.commit().await.expect("committed");
    eventually(Duration::from_millis(800), "its lane is told", async || {
        (bed.state(first).await == "succeeded").then_some(())
    })
    .await;
    let third = bed.enqueue_with(job, Options::default()).await;
    assert!(!third.duplicate, "it is over");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_handed_back_waits_under_its_key_again() {
    let bed = Bed::new().await;
    let worker = bed.worker_with(WorkerOptions { shutdown_timeout: Duration::from_millis(100), ..quick() });
    let job = Act { unique: Some("u".into()), unique_while_waiting: true, ..act(What::Wait(60_000)) };
    let first = bed.enqueue(job.clone()).await;
    bed.becomes(first, "running").await;
    worker.stop().await;
    assert_eq!(bed.state(first).await, "queued");
    let second = bed.enqueue_with(job, Options::default()).await;
    assert_eq!((second.id, second.duplicate), (first, true));
}

/// Its claim is answered after the worker was told to stop: it was never begun, so it costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_under_way_at_a_stop_goes_back_as_it_came() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let open = bed.slot_being_taken().await;
    let once = Options { max_attempts: Some(1), ..Options::default() };
    let job = bed.enqueue_with(keyed(40, 1), once).await.id;
    bed.becomes(job, "running").await;
    let stopping = tokio::spawn(worker.stop());
    tokio::time::sleep(Duration::from_millis(300)).await;
    open.rollback().await.expect("rolled back");
    assert_eq!(stopping.await.expect("stopped"), streamspace_queue::Ended::Stopped);
    let row = bed.job(job).await;
    assert_eq!((&row["state"], &row["attempt"]), (&json!("queued"), &json!(0)));
    assert_eq!(row["errors"], Value::Null);
    assert_eq!(bed.number("select count(*) from job_slots").await, 0);
    assert_eq!(bed.number("select count(*) from workers").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_enqueues_of_one_unique_key_leave_one_job() {
    let bed = Bed::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (queue, tenant) = (bed.queue.clone(), bed.tenant);
        tasks.spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..50 {
                let mut tx = queue.begin(Actor::system(tenant), Request::default());
                let job = Act { unique: Some("one".into()), ..act(What::Nothing) };
                ids.push(streamspace_queue::enqueue(&mut tx, job).await.expect("enqueued").id);
                tx.commit().await.expect("committed");
            }
            ids
        });
    }
    let ids: std::collections::HashSet<JobId> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!((ids.len(), bed.number("select count(*) from jobs").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_in_an_open_transaction_holds_up_nobody() {
    let bed = Bed::new().await;
    let job = Act { unique: Some("u".into()), ..act(What::Nothing) };
    let holder = bed.enqueue(job.clone()).await;
    let mut open = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    let duplicate = enqueue(&mut open, job).await.expect("enqueued");
    assert_eq!((duplicate.id, duplicate.duplicate), (holder, true));
    let worker = bed.worker();
    bed.becomes(holder, "succeeded").await;
    // Nor do they wait for each other.
    let now = control::cancel(&mut open, Scope::Tenant(bed.tenant), holder).await.expect("read");
    assert_eq!(now.state.as_str(), "succeeded");
    open.commit().await.expect("committed");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_finds_its_key_held_does_not_hold_up_the_holder() {
    let bed = Bed::new().await;
    let scope = Scope::Tenant(bed.tenant);
    let job = Act { unique: Some("u".into()), ..act(What::Nothing) };
    let first = bed.enqueue(job.clone()).await;
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    control::cancel(&mut tx, scope, first).await.expect("cancelled");
    tx.commit().await.expect("committed");
    let holder = bed.enqueue(job).await;
    let mut open = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    let refused = control::retry(&mut open, scope, first).await;
    assert!(matches!(refused, Err(ControlError::KeyHeld { holder: Some(id) }) if id == holder));
    let worker = bed.worker();
    bed.becomes(holder, "succeeded").await;
    drop(open);
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    control::retry(&mut tx, scope, first).await.expect("the key is free");
    tx.commit().await.expect("committed");
    bed.becomes(first, "succeeded").await;
    worker.stop().await;
}

/// Has a key for a time.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Timed {
    kept: bool,
    ms: u64,
}

impl Job for Timed {
    const KIND: &'static str = "test.timed";
    const QUEUE: &'static str = "test";
    type Ctx = ();

    fn unique(&self) -> Option<Unique> {
        let ttl = Duration::from_millis(self.ms);
        Some(if self.kept { Unique::kept_for("k", ttl) } else { Unique::until_finished("k").at_most(ttl) })
    }

    async fn run(self, (): &(), _: &Attempt) -> Result<Done, Failure> {
        Ok(Done::nothing())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_kept_for_a_time_outlives_its_job_and_no_longer() {
    let bed = Bed::new().await;
    let registry = Registry::new().register::<Timed>(Arc::new(()));
    let worker = bed.worker_of(bed.queue.clone(), registry, quick());
    let job = Timed { kept: true, ms: 2_000 };
    let first = bed.enqueue(job).await;
    bed.becomes(first, "succeeded").await;
    let second = bed.enqueue_with(job, Options::default()).await;
    assert_eq!((second.id, second.duplicate), (first, true), "the job is over, its key is not");
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    control::delete(&mut tx, Scope::Tenant(bed.tenant), first).await.expect("deleted");
    tx.commit().await.expect("committed");
    assert!(bed.enqueue_with(job, Options::default()).await.duplicate, "whatever becomes of the job");
    eventually(Duration::from_secs(5), "the time is over", async || {
        (bed.number("select count(*) from job_keys where until > queue.now()").await == 0).then_some(())
    })
    .await;
    let third = bed.enqueue_with(job, Options::default()).await;
    assert!(!third.duplicate);
    assert!(bed.enqueue_with(job, Options::default()).await.duplicate, "the time begins anew");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_held_too_long_is_another_jobs() {
    let bed = Bed::new().await;
    let job = Timed { kept: false, ms: 300 };
    let first = bed.enqueue(job).await;
    assert!(bed.enqueue_with(job, Options::default()).await.duplicate);
    tokio::time::sleep(Duration::from_millis(350)).await;
    let long = Timed { ms: 60_000, ..job };
    let second = bed.enqueue_with(long, Options::default()).await;
    assert!(!second.duplicate);
    // The end of the first does not give away what is the second's.
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    control::cancel(&mut tx, Scope::Tenant(bed.tenant), first).await.expect("cancelled");
    tx.commit().await.expect("committed");
    let third = bed.enqueue_with(long, Options::default()).await;
    assert_eq!((third.id, third.duplicate), (second.id, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_be_longer_than_an_index_takes() {
    let bed = Bed::new().await;
    // A text that no compression makes short.
    let long: String = (0..8_000).map(|_| rand::random_range('a'..='z')).collect();
    let key = |end: &str| format!("{long}{end}");
    let job = |end: &str| Act { slots: vec![(key(end), 1)], unique: Some(key(end)), ..act(What::Nothing) };
    let first = bed.enqueue(job("1")).await;
    let (same, other) = (bed.enqueue(job("1")).await, bed.enqueue(job("2")).await);
    assert_eq!(same, first);
    assert_ne!(other, first);
    let parked = bed.enqueue(act(What::ParkFor(long.clone()))).await;
    let worker = bed.worker();
    for id in [first, other] {
        bed.becomes(id, "succeeded").await;
    }
    bed.becomes(parked, "parked").await;
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    sqlx::query("insert into effects (job, what) values (gen_random_uuid(), 'event')")
        .execute(tx.conn().await.expect("a connection"))
        .await
        .expect("inserted");
    tx.happened(long);
    tx.commit().await.expect("committed");
    bed.becomes(parked, "succeeded").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_abandoned_handler_frees_its_slot_although_the_database_refuses_once() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let keyed = |what| Act { slots: vec![("k".into(), 1)], ..act(what) };
    let once = Options { max_attempts: Some(1), ..Options::default() };
    let id = bed.enqueue_with(keyed(What::Block(5_000)), once).await.id;
    bed.becomes(id, "failed").await;
    assert_eq!(bed.number("select count(*) from job_slots").await, 1, "its handler still runs");
    bed.execute("alter table job_slots rename to elsewhere").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    bed.execute("alter table elsewhere rename to job_slots").await;
    let next = bed.enqueue(keyed(What::Nothing)).await;
    bed.becomes(next, "succeeded").await;
    worker.stop().await;
}
