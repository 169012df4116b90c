//! What happens between the claim of a job and its start.

use std::time::Duration;

use streamspace_common::Actor;
use streamspace_queue::{Request, WorkerOptions, control, inspect::Scope};
use streamspace_testkit::eventually;

use crate::bed::{Act, Bed, What, act, quick};

fn keyed(what: What) -> Act {
    Act { slots: vec![("k".into(), 1)], ..act(what) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_between_its_claim_and_its_start_does_not_begin() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let slot = bed.slot_being_taken().await;
    let job = bed.enqueue(keyed(What::Wait(60_000))).await;
    bed.sees_waiting("%insert into job_slots%").await;
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    control::cancel(&mut tx, Scope::Tenant(bed.tenant), job).await.expect("cancelled");
    tx.commit().await.expect("committed");
    slot.rollback().await.expect("rolled back");
    let row = bed.becomes(job, "cancelled").await;
    assert!(!row["cancel_delivered_at"].is_null(), "{row}");
    assert!(bed.effects(job).await.is_empty());
    assert_eq!(bed.number("select count(*) from job_slots").await, 0);
    worker.stop().await;
}

/// What was claimed with it and may have no slot goes back, and waits for no beat to find it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_a_key_starts_although_slots_can_not_be_taken() {
    let bed = Bed::new().await;
    let with = bed.enqueue(keyed(What::Nothing)).await;
    let without = bed.enqueue(act(What::Wait(10))).await;
    bed.execute("alter table job_slots rename to elsewhere").await;
    let seldom = Duration::from_secs(30);
    let worker = bed.worker_with(WorkerOptions { heartbeat: seldom, lease: seldom * 3, ..quick() });
    eventually(Duration::from_secs(3), "it starts", async || {
        (!bed.effects(without).await.is_empty()).then_some(())
    })
    .await;
    // Ends of jobs need the table too.
    bed.execute("alter table elsewhere rename to job_slots").await;
    for id in [with, without] {
        assert_eq!(bed.becomes(id, "succeeded").await["attempt"], 1);
    }
    assert_eq!(bed.effects(without).await, ["start", "end"]);
    worker.stop().await;
}
