//! A worker that froze in the middle of a transaction holds up nobody else's jobs.

use std::time::Duration;

use streamspace_common::Actor;
use streamspace_queue::{Options, WorkerOptions, enqueue};
use streamspace_testkit::eventually;

use crate::bed::{Act, Bed, What, act, quick};

/// Less than anybody waits for an answer of the database.
const SOON: Duration = Duration::from_secs(6);

async fn succeeds_soon(bed: &Bed, job: streamspace_common::JobId) {
    eventually(SOON, "it runs meanwhile", async || (bed.state(job).await == "succeeded").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_not_sent_keeps_no_other_job_of_the_dead_from_its_rescue() {
    let bed = Bed::new().await;
    let job = bed.enqueue(act(What::Nothing)).await;
    bed.execute(
        "update jobs set state = 'running', attempt = 1, fence = 1, claimed_at = now(), started_at = now(),
                         boot_id = gen_random_uuid();
         insert into job_slots (key, slot_no, job_id, fence, boot_id)
         values ('frozen', 1, gen_random_uuid(), 1, gen_random_uuid())",
    )
    .await;
    let mut frozen = bed.queue.db().begin().await.expect("a transaction");
    sqlx::query("delete from job_slots where key = 'frozen'").execute(&mut *frozen).await.expect("deleted");
    let worker = bed.worker();
    succeeds_soon(&bed, job).await;
    frozen.rollback().await.expect("rolled back");
    eventually(SOON, "its slot goes too", async || {
        (bed.number("select count(*) from job_slots").await == 0).then_some(())
    })
    .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_froze_within_a_limit_keeps_no_other_queue_from_work() {
    let bed = Bed::new().await;
    bed.execute(
        "insert into queue_controls (queue, tenant_id, max_running, updated_at)
         values ('limited', '00000000-0000-0000-0000-000000000001', 5, now())",
    )
    .await;
    let mut frozen = bed.queue.db().begin().await.expect("a transaction");
    let lock = "select from queue_controls for update";
    sqlx::query(lock).execute(&mut *frozen).await.expect("locked");
    let worker = bed.worker();
    let options = Options { queue: Some("limited".into()), ..Options::default() };
    let limited = bed.enqueue_with(act(What::Nothing), options).await.id;
    bed.sees_waiting("%queue_controls%for update%").await;
    for _ in 0..2 {
        let other = bed.enqueue(act(What::Nothing)).await;
        succeeds_soon(&bed, other).await;
    }
    assert_eq!(bed.state(limited).await, "queued");
    frozen.rollback().await.expect("rolled back");
    succeeds_soon(&bed, limited).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_in_the_hands_of_one_that_froze_keeps_nothing_else_from_work() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let frozen = bed.slot_being_taken().await;
    let keyed = bed.enqueue(Act { slots: vec![("k".into(), 1)], ..act(What::Nothing) }).await;
    bed.sees_waiting("%insert into job_slots%").await;
    for _ in 0..2 {
        let other = bed.enqueue(act(What::Nothing)).await;
        succeeds_soon(&bed, other).await;
    }
    assert_ne!(bed.state(keyed).await, "succeeded");
    frozen.rollback().await.expect("rolled back");
    assert_eq!(bed.becomes(keyed, "succeeded").await["attempt"], 1);
    worker.stop().await;
}

/// A rescue that takes long is not waited for: what operators do reaches the worker.
#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_that_hangs_keeps_the_worker_from_no_control() {
    let bed = Bed::new().await;
    bed.execute(
        "insert into queue_controls (queue, tenant_id, paused_at, updated_at)
         values ('paused', '00000000-0000-0000-0000-000000000001', now(), now());
         insert into workers (boot_id, host, pid, version, release, kinds, concurrency, started_at, beat_at)
         values (gen_random_uuid(), 'dead', 1, '1', 1, '{}', 1, now(), now() - interval '1 hour');
         create function hang() returns trigger language plpgsql as $$ begin
           if current_query() like '%worker_lost%' then perform pg_advisory_xact_lock(1); end if;
           return new;
         end $$;
         create trigger hang before update on jobs for each row execute function hang()",
    )
    .await;
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Default::default());
    let lost = enqueue(&mut tx, act(What::Nothing)).await.expect("enqueued").id;
    let run =
        "update jobs set state = 'running', attempt = 1, fence = 1, claimed_at = now(), started_at = now(),
                               boot_id = (select boot_id from workers)";
    sqlx::query(run).execute(tx.conn().await.expect("a connection")).await.expect(run);
    tx.commit().await.expect("committed");
    let mut hanging = bed.queue.db().begin().await.expect("a transaction");
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *hanging).await.expect("locked");
    let options = Options { queue: Some("paused".into()), ..Options::default() };
    let paused = bed.enqueue_with(act(What::Nothing), options).await.id;

    let worker = bed.worker();
    bed.sees_waiting("with lost as materialized%").await;
    bed.execute("delete from queue_controls").await;
    succeeds_soon(&bed, paused).await;
    hanging.rollback().await.expect("unlocked");
    bed.becomes(lost, "succeeded").await;
    worker.stop().await;
}

/// What was handed back or rescued has not waited while it ran.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ran_waits_from_when_it_stopped() {
    let bed = Bed::new().await;
    let job = bed.enqueue(act(What::Wait(60_000))).await;
    bed.execute("update jobs set run_at = run_at - interval '5 hours', timeout_ms = 60000").await;
    let place = bed.job(job).await["order_at"].clone();
    let waits = "select count(*) from jobs where state = 'queued' and run_at > now() - interval '1 minute'";
    let options = WorkerOptions { shutdown_timeout: Duration::ZERO, ..quick() };
    let worker = bed.worker_with(options.clone());
    bed.has_begun(job).await;
    worker.stop().await;
    assert_eq!(bed.number(waits).await, 1, "it was handed back");

    // Its worker died: whoever takes it over may not look into its queue.
    bed.execute(
        "update jobs set state = 'running', attempt = 1, run_at = run_at - interval '5 hours', claimed_at = now(),
                         boot_id = gen_random_uuid()",
    )
    .await;
    let elsewhere = WorkerOptions { queues: Some(vec!["elsewhere".into()]), ..options };
    let worker = bed.worker_with(elsewhere);
    bed.becomes(job, "queued").await;
    assert_eq!(bed.number(waits).await, 1, "it was rescued");
    assert_eq!(bed.job(job).await["order_at"], place, "its place is the old one");
    worker.stop().await;
}
