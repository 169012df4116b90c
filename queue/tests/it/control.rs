//! Cancel, retry, delete.

use std::time::Duration;

use streamspace_common::{Actor, JobId, TenantId};
use streamspace_queue::{
    Ended, Options, Release, Request, State, Tx, WorkerOptions,
    control::{self, Change, ControlError},
    inspect::{self, Filter, JobRow, Scope},
    workers,
};
use streamspace_testkit::{eventually, holds_for};

use crate::bed::{Act, Bed, SOON, What, act, quick};

fn begin(bed: &Bed) -> Tx {
    bed.queue.begin(Actor::system(bed.tenant), Request::default())
}

async fn cancel(bed: &Bed, id: JobId) -> JobRow {
    let mut tx = begin(bed);
    let job = control::cancel(&mut tx, Scope::Tenant(bed.tenant), id).await.expect("cancelled");
    tx.commit().await.expect("committed");
    job
}

async fn retry(bed: &Bed, id: JobId) -> Result<JobRow, ControlError> {
    let mut tx = begin(bed);
    let job = control::retry(&mut tx, Scope::Tenant(bed.tenant), id).await?;
    tx.commit().await.expect("committed");
    Ok(job)
}

fn unique(key: &str) -> Act {
    Act { unique: Some(key.into()), ..act(What::Nothing) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_is_cancelled_at_once_and_gives_up_its_key() {
    let bed = Bed::new().await;
    let first = bed.enqueue(unique("u")).await;
    let job = cancel(&bed, first).await;
    assert_eq!(job.state, State::Cancelled);
    assert!(
        job.finished_at.is_some() && job.cancel_requested_at.is_some() && job.cancel_stopped_at.is_some()
    );
    assert!(job.cancel_delivered_at.is_none(), "nobody had to be told");
    assert!(!bed.enqueue_with(unique("u"), Options::default()).await.duplicate);
    // Once more changes nothing.
    assert_eq!(cancel(&bed, first).await, job);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_stopped_and_the_three_moments_are_kept() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    // A fresh worker's claim, then a cancel that another process commits.
    let id = bed.enqueue(act(What::Wait(60_000))).await;
    eventually(Duration::from_secs(5), "it runs", async || (!bed.effects(id).await.is_empty()).then_some(()))
        .await;
    let asked = std::time::Instant::now();
    let other = bed.another_queue(streamspace_queue::Release(1));
    let mut tx = other.begin(Actor::system(bed.tenant), Request::default());
    let job = control::cancel(&mut tx, Scope::Tenant(bed.tenant), id).await.expect("cancelled");
    tx.commit().await.expect("committed");
    assert_eq!((job.state, job.cancel_requested_at.is_some()), (State::Running, true));
    bed.becomes(id, "cancelled").await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    let mut conn = bed.queue.read().await.expect("a connection");
    let job = inspect::get(&mut conn, Scope::Installation, id).await.expect("read").expect("a job");
    let (requested, delivered, stopped) =
        (job.cancel_requested_at, job.cancel_delivered_at, job.cancel_stopped_at);
    assert!(requested.is_some() && requested <= delivered && delivered <= stopped, "{job:?}");
    assert_eq!(bed.effects(id).await, ["start", "stopped"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_retried_with_its_history() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let id = bed.enqueue(act(What::Permanent)).await;
    bed.becomes(id, "failed").await;
    assert!(matches!(cancel(&bed, id).await.state, State::Failed), "what is over stays as it is");
    worker.stop().await;

    let job = retry(&bed, id).await.expect("retried");
    assert_eq!((job.state, job.attempt, job.errors.len()), (State::Queued, 0, 1));
    assert_eq!((job.finished_at, job.started_at, job.cancel_requested_at), (None, None, None));
    assert!(matches!(retry(&bed, id).await, Err(ControlError::NotRetryable(State::Queued))));

    let worker = bed.worker();
    let job = bed.becomes(id, "failed").await;
    assert_eq!(job["errors"].as_array().map(Vec::len), Some(2));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_respects_the_unique_key() {
    let bed = Bed::new().await;
    let first = bed.enqueue(unique("u")).await;
    cancel(&bed, first).await;
    let second = bed.enqueue(unique("u")).await;
    match retry(&bed, first).await {
        Err(ControlError::KeyHeld { holder }) => assert_eq!(holder, Some(second)),
        other => panic!("{other:?}"),
    }
    cancel(&bed, second).await;
    retry(&bed, first).await.expect("retried");
    assert!(bed.enqueue_with(unique("u"), Options::default()).await.duplicate, "it has the key again");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_over_can_be_deleted_and_only_by_who_sees_it() {
    let bed = Bed::new().await;
    let id = bed.enqueue(act(What::Nothing)).await;
    let mut tx = begin(&bed);
    let scope = Scope::Tenant(bed.tenant);
    let kept = control::delete(&mut tx, scope, id).await;
    assert!(matches!(kept, Err(ControlError::NotOver(State::Queued))), "{kept:?}");
    tx.rollback().await.expect("rolled back");
    cancel(&bed, id).await;
    let mut tx = begin(&bed);
    let foreign = control::delete(&mut tx, Scope::Tenant(TenantId::new()), id).await;
    assert!(matches!(foreign, Err(ControlError::NotFound)));
    control::delete(&mut tx, scope, id).await.expect("deleted");
    tx.commit().await.expect("committed");
    assert_eq!(bed.number("select count(*) from jobs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_worked_off_in_steps_that_touch_nothing_else() {
    let bed = Bed::new().await;
    let mut tx = begin(&bed);
    let jobs = (0..1_250).map(|_| act(What::Nothing));
    streamspace_queue::enqueue_many(&mut tx, jobs, &Options::default()).await.expect("enqueued");
    tx.commit().await.expect("committed");
    let foreign = bed.enqueue_as(TenantId::new(), act(What::Nothing), Options::default()).await.id;

    let work_off = async |change: Change, filter: &Filter| {
        let filter = change.narrow(filter).expect("states that it applies to");
        let (mut after, mut changed) = (None, Vec::new());
        loop {
            let mut tx = begin(&bed);
            let scope = Scope::Tenant(bed.tenant);
            let step =
                control::change_some(&mut tx, scope, change, &filter, after, None).await.expect("a step");
            tx.commit().await.expect("committed");
            changed.push(step.changed);
            match step.next {
                Some(next) => after = Some(next),
                None => return changed,
            }
        }
    };
    let all = Filter::default();
    assert_eq!(work_off(Change::Cancel, &all).await, [500, 500, 250]);
    assert_eq!(bed.state(foreign).await, "queued");
    let other_kind = Filter { kind: Some("other".into()), ..Filter::default() };
    assert_eq!(work_off(Change::Retry, &other_kind).await, [0]);
    assert_eq!(work_off(Change::Retry, &all).await, [500, 500, 250]);
    assert_eq!(bed.number("select count(*) from jobs where state = 'queued'").await, 1_251);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_jobs_with_one_unique_key_only_one_is_retried() {
    let bed = Bed::new().await;
    for _ in 0..3 {
        let id = bed.enqueue(unique("u")).await;
        cancel(&bed, id).await;
    }
    let mut tx = begin(&bed);
    let filter = Change::Retry.narrow(&Filter::default()).expect("states that it applies to");
    let step = control::change_some(&mut tx, Scope::Installation, Change::Retry, &filter, None, None)
        .await
        .expect("a step");
    tx.commit().await.expect("committed");
    assert_eq!(step.changed, 1);
    assert_eq!(bed.number("select count(*) from jobs where state = 'queued'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_seen_with_what_it_runs_and_ends_when_drained() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let id = bed.enqueue(act(What::Wait(1_500))).await;
    bed.becomes(id, "running").await;
    let mut conn = bed.queue.read().await.expect("a connection");
    let list = workers::list(&mut conn, Scope::Tenant(bed.tenant)).await.expect("read");
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].running, list[0].status), (1, workers::Status::Live));
    let boot = list[0].id;
    let foreign = workers::get(&mut conn, Scope::Tenant(TenantId::new()), boot).await.expect("read");
    assert_eq!(foreign.map(|worker| worker.running), Some(0));
    assert_eq!(workers::running(&mut conn, Scope::Installation, boot).await.expect("read"), [id]);

    let mut tx = begin(&bed);
    assert!(workers::set_draining(&mut tx, boot, true).await.expect("asked"));
    tx.commit().await.expect("committed");
    bed.becomes(id, "succeeded").await;
    eventually(Duration::from_secs(5), "it is gone", async || {
        (bed.number("select count(*) from workers").await == 0).then_some(())
    })
    .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_acts_within_a_second_and_can_be_taken_back_while_something_runs() {
    let bed = Bed::new().await;
    // No beat comes in time to tell.
    let (lease, heartbeat) = (Duration::from_secs(300), Duration::from_secs(100));
    let long = bed.enqueue(act(What::Wait(60_000))).await;
    bed.execute("update jobs set timeout_ms = 60000").await;
    let worker = bed.worker_with(WorkerOptions { concurrency: 10, lease, heartbeat, ..quick() });
    bed.becomes(long, "running").await;
    let mut conn = bed.queue.read().await.expect("a connection");
    let boot = workers::list(&mut conn, Scope::Installation).await.expect("read")[0].id;
    // An operator's request arrives at another process.
    let api = bed.another_queue(Release(1));
    let set_draining = async |draining| {
        let mut tx = api.begin(Actor::system(bed.tenant), Request::default());
        assert!(workers::set_draining(&mut tx, boot, draining).await.expect("asked"));
        tx.commit().await.expect("committed");
    };
    const BOUND: Duration = Duration::from_secs(1);

    set_draining(true).await;
    tokio::time::sleep(BOUND).await;
    let waiting = bed.enqueue(act(What::Nothing)).await;
    tokio::time::sleep(BOUND / 2).await;
    assert_eq!((bed.state(waiting).await, bed.state(long).await), ("queued".into(), "running".into()));

    set_draining(false).await;
    eventually(BOUND, "it takes jobs again", async || {
        (bed.state(waiting).await == "succeeded").then_some(())
    })
    .await;

    set_draining(true).await;
    cancel(&bed, long).await;
    bed.becomes(long, "cancelled").await;
    eventually(2 * BOUND, "it has ended and is gone", async || {
        (bed.number("select count(*) from workers").await == 0).then_some(())
    })
    .await;
    assert_eq!(worker.stop().await, Ended::Stopped);
}

/// Part of a process that goes on: were it to end, nobody would start it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stays_is_drained_idle_and_resumed() {
    let bed = Bed::new().await;
    let worker = bed.worker_with(WorkerOptions { stays: true, ..quick() });
    let first = bed.enqueue(act(What::Nothing)).await;
    bed.becomes(first, "succeeded").await;
    bed.execute("update workers set draining = true").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let waiting = bed.enqueue(act(What::Nothing)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(bed.state(waiting).await, "queued");
    assert_eq!(bed.number("select count(*) from workers where draining").await, 1);
    bed.execute("update workers set draining = false").await;
    bed.becomes(waiting, "succeeded").await;
    assert_eq!(worker.stop().await, Ended::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_that_is_taken_for_dead_stays_drained() {
    let bed = Bed::new().await;
    // It reads what is wanted of it before a beat tells that it is gone.
    let (lease, heartbeat) = (Duration::from_secs(9), Duration::from_secs(3));
    let worker = bed.worker_with(WorkerOptions { stays: true, lease, heartbeat, ..quick() });
    let first = bed.enqueue(act(What::Nothing)).await;
    bed.becomes(first, "succeeded").await;
    bed.execute("update workers set draining = true").await;
    let drained = "select count(*) from workers where draining";
    holds_for(Duration::from_millis(1500), "it is", async || bed.number(drained).await == 1).await;
    bed.execute("delete from workers").await;
    eventually(SOON, "it is there again", async || {
        (bed.number("select count(*) from workers").await == 1).then_some(())
    })
    .await;
    assert_eq!(bed.number(drained).await, 1);
    let waiting = bed.enqueue(act(What::Nothing)).await;
    holds_for(Duration::from_millis(1500), "it waits", async || bed.state(waiting).await == "queued").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_end_while_it_registers_leaves_no_row() {
    let bed = Bed::new().await;
    // Its announcement is on its way, and arrives after it was told to end.
    bed.execute(
        "create function wait() returns trigger language plpgsql as $$
         begin perform pg_advisory_xact_lock(1); return new; end $$;
         create trigger wait before insert on workers for each row execute function wait()",
    )
    .await;
    let mut held = bed.queue.db().begin().await.expect("a transaction");
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *held).await.expect("locked");
    let worker = bed.worker();
    eventually(Duration::from_secs(5), "it registers", async || {
        let waiting = "select count(*) from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock' and query like 'insert into workers%'";
        (bed.number(waiting).await == 1).then_some(())
    })
    .await;
    let ended = tokio::spawn(worker.stop());
    tokio::time::sleep(Duration::from_millis(200)).await;
    held.rollback().await.expect("unlocked");
    assert_eq!(ended.await.expect("no panic"), Ended::Stopped);
    holds_for(Duration::from_secs(1), "no worker is left", async || {
        bed.number("select count(*) from workers").await == 0
    })
    .await;
}
