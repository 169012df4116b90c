//! Unique keys and transactions that overlap: no end of a job waits for one that takes its key over, and
//! nobody takes a key away from who has just got it.

use std::time::Duration;

use serde_json::json;
use streamspace_common::{Actor, JobId};
use streamspace_queue::{
    Options, Registry, Release, Request, Tx,
    control::{self, ControlError},
    enqueue,
    inspect::Scope,
    notice::Lane,
};
use streamspace_testkit::eventually;
use tokio::task::JoinHandle;

use crate::bed::{Act, Bed, SOON, What, act, quick};

const KEYS: &str = "select count(*) from job_keys";

fn begin(bed: &Bed) -> Tx {
    bed.queue.begin(Actor::system(bed.tenant), Request::default())
}

/// Its key is another's to take as soon as it runs.
fn while_waiting(what: What) -> Act {
    Act { unique: Some("u".into()), unique_while_waiting: true, ..act(what) }
}

/// Its key is another's to take at once.
fn expired(what: What) -> Act {
    Act { unique: Some("u".into()), unique_for_ms: Some(0), ..act(what) }
}

/// A transaction, still open, that has taken over the key `u`.
async fn take_over(bed: &Bed, next: Act) -> Tx {
    let mut open = begin(bed);
    let next = enqueue(&mut open, next).await.expect("enqueued");
    assert!(!next.duplicate);
    open
}

async fn cancel(bed: &Bed, id: JobId) -> Tx {
    let mut tx = begin(bed);
    control::cancel(&mut tx, Scope::Tenant(bed.tenant), id).await.expect("cancelled");
    tx
}

/// In a transaction of its own.
fn retry(bed: &Bed, id: JobId) -> JoinHandle<Result<(), ControlError>> {
    let (mut tx, scope) = (begin(bed), Scope::Tenant(bed.tenant));
    tokio::spawn(async move {
        control::retry(&mut tx, scope, id).await?;
        Ok(tx.commit().await?)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_waits_for_nobody_who_takes_over_a_key() {
    let bed = Bed::new().await;
    let once = Options { max_attempts: Some(1), ..Options::default() };
    let job = bed.enqueue_with(while_waiting(What::Wait(60_000)), once).await.id;
    bed.execute("update jobs set timeout_ms = 60000").await;
    let worker = bed.worker();
    bed.has_begun(job).await;
    let _open = take_over(&bed, while_waiting(What::Nothing)).await;
    bed.execute("delete from workers").await;
    assert_eq!(bed.becomes(job, "failed").await["errors"][0]["kind"], json!("worker_lost"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_waits_for_nobody_who_takes_over_a_key() {
    let bed = Bed::new().await;
    let job = bed.enqueue(expired(What::Nothing)).await;
    let open = take_over(&bed, expired(What::Nothing)).await;
    let cancelled = tokio::time::timeout(SOON, cancel(&bed, job)).await.expect("at once");
    cancelled.commit().await.expect("committed");
    open.commit().await.expect("committed");
    assert_eq!(bed.number(KEYS).await, 1, "the other's");
}

/// It is cancelled while it parks.
#[tokio::test(flavor = "multi_thread")]
async fn a_park_waits_for_nobody_who_takes_over_a_key() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let job = bed.enqueue(while_waiting(What::ParkAfter(1_000))).await;
    bed.has_begun(job).await;
    let _open = take_over(&bed, while_waiting(What::Nothing)).await;
    let cancelled = cancel(&bed, job).await;
    bed.sees_waiting("%insert into job_events%").await;
    cancelled.commit().await.expect("committed");
    bed.becomes(job, "cancelled").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_nobody_knows_fails_while_its_key_is_taken_over() {
    let bed = Bed::new().await;
    let worker = bed.worker_of(bed.queue.clone(), Registry::new(), quick());
    let newer = bed.another_queue(Release(2));
    let mut tx = newer.begin(Actor::system(bed.tenant), Request::default());
    let job = enqueue(&mut tx, expired(What::Nothing)).await.expect("enqueued").id;
    tx.commit().await.expect("committed");
    eventually(SOON, "it is handed back", async || {
        (bed.job(job).await["lane"] == "test/test.act@1").then_some(())
    })
    .await;
    let _open = take_over(&bed, expired(What::Nothing)).await;
    // Not before: its key would be gone by then.
    bed.execute("update jobs set unknown_since = unknown_since - interval '2 days'").await;
    bed.becomes(job, "failed").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_while_it_waits_for_its_slot_gives_up_its_unique_key() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let slot = bed.slot_being_taken().await;
    let job = bed.enqueue(Act { slots: vec![("k".into(), 1)], ..while_waiting(What::Nothing) }).await;
    bed.sees_waiting("%insert into job_slots%").await;
    cancel(&bed, job).await.commit().await.expect("committed");
    slot.commit().await.expect("committed");
    bed.becomes(job, "cancelled").await;
    assert_eq!(bed.number(KEYS).await, 0);
    worker.stop().await;
}

/// Such a job is passed by when its slot is freed, or when its event woke it, as long as the transaction
/// is open; the sweeps that find it are not what is waited for here.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_kept_a_job_waiting_tells_of_all_that_it_may_have_missed() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let parked = bed.enqueue(while_waiting(What::Park { timeout_ms: 60_000 })).await;
    bed.becomes(parked, "parked").await;
    let slots = vec![("k".to_owned(), 1)];
    let holder = bed.enqueue(Act { slots: slots.clone(), ..act(What::Wait(1_000)) }).await;
    bed.has_begun(holder).await;
    let blocked = Act { unique: Some("b".into()), slots, ..while_waiting(What::Nothing) };
    let behind = bed.enqueue(blocked.clone()).await;
    assert_eq!(bed.state(behind).await, "blocked");

    let mut open = begin(&bed);
    for (duplicate, first) in [(blocked, behind), (while_waiting(What::Nothing), parked)] {
        assert_eq!(enqueue(&mut open, duplicate).await.expect("enqueued").id, first);
    }
    bed.becomes(holder, "succeeded").await;
    let mut event = begin(&bed);
    sqlx::query("insert into effects (job, what) values (gen_random_uuid(), 'event')")
        .execute(event.conn().await.expect("a connection"))
        .await
        .expect("inserted");
    event.happened("it");
    event.commit().await.expect("committed");
    bed.becomes(parked, "queued").await;

    let told = open.notices();
    let lane = Lane { name: "test".into(), tenant: bed.tenant };
    assert!(told.claimable.contains_key(&lane) && told.due.is_some());
    assert!(told.unblock.contains(&format!("{}/k", bed.tenant.0.simple())));
    open.commit().await.expect("committed");
    for job in [parked, behind] {
        bed.becomes(job, "succeeded").await;
    }
    worker.stop().await;
}

/// What does not wait is not told of: each look costs, and duplicates are many.
#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_tells_of_no_more_than_its_job_may_have_missed() {
    let bed = Bed::new().await;
    bed.slot_being_taken().await.commit().await.expect("taken");
    let queued = while_waiting(What::Nothing);
    let scheduled = Act { unique: Some("s".into()), ..queued.clone() };
    let blocked = Act { unique: Some("b".into()), slots: vec![("k".into(), 1)], ..queued.clone() };
    let later = Options { delay: Some(Duration::from_secs(60)), ..Options::default() };
    bed.enqueue_with(scheduled.clone(), later).await;
    let mut open = begin(&bed);
    let mut told = Vec::new();
    for (job, state) in [(queued, "queued"), (scheduled, "scheduled"), (blocked, "blocked")] {
        if state != "scheduled" {
            bed.enqueue(job.clone()).await;
        }
        let again = enqueue(&mut open, job).await.expect("enqueued");
        assert!(again.duplicate);
        assert_eq!(bed.state(again.id).await, state);
        let notices = std::mem::take(open.notices());
        told.push((notices.claimable.len(), usize::from(notices.due.is_some()), notices.unblock.len()));
    }
    assert_eq!(told, [(1, 0, 0), (0, 1, 0), (0, 0, 1)]);
}

/// Cancelled while another one was taking its key over, and did not: the key is still its own.
async fn over_but_with_its_key(bed: &Bed) -> JobId {
    let job = bed.enqueue(expired(What::Nothing)).await;
    let open = take_over(bed, expired(What::Nothing)).await;
    cancel(bed, job).await.commit().await.expect("committed");
    open.rollback().await.expect("rolled back");
    assert_eq!(bed.number(KEYS).await, 1);
    job
}

/// Whoever looks for keys to lock pauses at each, until this is over.
async fn pause_at_keys(bed: &Bed) -> sqlx::Transaction<'static, sqlx::Postgres> {
    bed.execute(
        "create function pause() returns boolean language plpgsql as $$ begin
           if current_query() like '%skip locked%' then perform pg_advisory_xact_lock(1); end if;
           return true;
         end $$;
         alter table job_keys rename to stored_keys;
         create view job_keys as select * from stored_keys where pause()",
    )
    .await;
    let mut pausing = bed.queue.db().begin().await.expect("a transaction");
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *pausing).await.expect("locked");
    pausing
}

fn unfinished(what: What) -> Act {
    Act { unique: Some("u".into()), ..act(what) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_has_its_key_only_if_whoever_takes_it_over_gives_it_up() {
    for taken in [true, false] {
        let bed = Bed::new().await;
        let job = over_but_with_its_key(&bed).await;
        let open = take_over(&bed, unfinished(What::Nothing)).await;
        let retrying = retry(&bed, job);
        bed.sees_waiting("%job_keys%").await;
        if taken {
            open.commit().await.expect("committed");
        } else {
            open.rollback().await.expect("rolled back");
        }
        let retried = retrying.await.expect("no panic");
        match retried {
            Err(ControlError::KeyHeld { holder: Some(holder) }) => assert!(taken && holder != job),
            Ok(()) => assert!(!taken),
            other => panic!("{other:?}"),
        }
        assert_eq!(bed.state(job).await, if taken { "cancelled" } else { "queued" });
        assert_eq!(bed.number("select count(*) from jobs where state = 'queued'").await, 1);
        assert_eq!(bed.number(KEYS).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_retries_that_overlap_one_has_the_key() {
    let bed = Bed::new().await;
    let other = bed.enqueue(unfinished(What::Nothing)).await;
    cancel(&bed, other).await.commit().await.expect("committed");
    let job = over_but_with_its_key(&bed).await;
    let mut open = begin(&bed);
    control::retry(&mut open, Scope::Tenant(bed.tenant), other).await.expect("retried");
    let retrying = retry(&bed, job);
    bed.sees_waiting("%job_keys%").await;
    open.commit().await.expect("committed");
    let refused = retrying.await.expect("no panic");
    assert!(matches!(refused, Err(ControlError::KeyHeld { holder: Some(id) }) if id == other), "{refused:?}");
    assert_eq!(bed.state(job).await, "cancelled");
}

/// The job that holds the key runs, so the key is anybody's: another one gets it between the moment at
/// which the retry finds it free and the one at which it locks it.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_takes_no_key_from_a_job_that_has_just_got_it() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let failed = bed.enqueue(while_waiting(What::Permanent)).await;
    bed.becomes(failed, "failed").await;
    worker.stop().await;
    let holder = bed.enqueue(while_waiting(What::Wait(60_000))).await;
    bed.execute("update jobs set timeout_ms = 60000").await;
    let worker = bed.worker();
    bed.has_begun(holder).await;

    let pausing = pause_at_keys(&bed).await;
    let retrying = retry(&bed, failed);
    bed.sees_waiting("%left join jobs holder%").await;
    let later = Options { delay: Some(Duration::from_secs(60)), ..Options::default() };
    let next = bed.enqueue_with(while_waiting(What::Nothing), later).await;
    assert!(!next.duplicate);
    pausing.rollback().await.expect("unlocked");
    let refused = retrying.await.expect("no panic");
    assert!(
        matches!(refused, Err(ControlError::KeyHeld { holder: Some(id) }) if id == next.id),
        "{refused:?}"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_and_a_deletion_that_overlap_do_not_wait_for_each_other() {
    let bed = Bed::new().await;
    let job = over_but_with_its_key(&bed).await;
    let pausing = pause_at_keys(&bed).await;
    let retrying = retry(&bed, job);
    // It has locked what the job left behind.
    bed.sees_waiting("%left join jobs holder%").await;
    let deleting = tokio::spawn({
        let (mut tx, scope) = (begin(&bed), Scope::Tenant(bed.tenant));
        async move { control::delete(&mut tx, scope, job).await }
    });
    bed.sees_waiting("%with gone as%").await;
    pausing.rollback().await.expect("unlocked");
    retrying.await.expect("no panic").expect("retried");
    let refused = deleting.await.expect("no panic");
    assert!(matches!(refused, Err(ControlError::NotOver(_))), "{refused:?}");
    assert_eq!(bed.state(job).await, "queued");
}
