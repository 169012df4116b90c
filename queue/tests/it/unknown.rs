//! Kinds that only newer workers know.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use streamspace_queue::{Attempt, Backoff, Done, Failure, Job, Options, Release, WorkerOptions, enqueue};
use streamspace_testkit::{eventually, holds_for};

use crate::bed::{Bed, quick, registry};

#[derive(Serialize, Deserialize)]
struct New;

impl Job for New {
    const KIND: &'static str = "test.new";
    const QUEUE: &'static str = "test";
    type Ctx = ();
    async fn run(self, (): &(), _: &Attempt) -> Result<Done, Failure> {
        Ok(Done::nothing())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_only_newer_workers_know_waits_for_one() {
    let bed = Bed::new().await;
    let old = bed.worker();
    let newer = bed.another_queue(Release(2));
    let mut tx = newer.begin(streamspace_common::Actor::system(bed.tenant), Default::default());
    let id = enqueue(&mut tx, New).await.expect("enqueued").id;
    tx.commit().await.expect("committed");
    eventually(Duration::from_secs(5), "it is handed back", async || {
        bed.job(id).await["lane"].as_str().filter(|lane| *lane == "test/test.new@1").map(|_| ())
    })
    .await;
    assert_eq!(bed.job(id).await["attempt"], serde_json::json!(0));
    let new = bed.worker_of(newer, registry().register::<New>(Arc::new(())), quick());
    bed.becomes(id, "succeeded").await;
    old.stop().await;
    new.stop().await;
}

/// Never succeeds, and is tried again and again.
#[derive(Serialize, Deserialize)]
struct Novel;

impl Job for Novel {
    const KIND: &'static str = "test.novel";
    const QUEUE: &'static str = "test";
    const ATTEMPTS: i32 = 10_000;
    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(50), cap: Duration::from_millis(50) };
    type Ctx = ();
    async fn run(self, (): &(), _: &Attempt) -> Result<Done, Failure> {
        Err(Failure::retry("again"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_whose_workers_are_rolled_back_waits_as_long_as_it_may_and_fails() {
    let bed = Bed::new().await;
    let unknown_after = Duration::from_secs(3);
    let old = bed.worker_with(WorkerOptions { unknown_after, ..quick() });
    let newer = bed.another_queue(Release(2));
    let mut tx = newer.begin(streamspace_common::Actor::system(bed.tenant), Default::default());
    let id = enqueue(&mut tx, Novel).await.expect("enqueued").id;
    tx.commit().await.expect("committed");
    eventually(Duration::from_secs(5), "it is handed back", async || {
        (bed.job(id).await["lane"] == "test/test.novel@1").then_some(())
    })
    .await;
    let new = bed.worker_of(newer, registry().register::<Novel>(Arc::new(())), quick());
    eventually(Duration::from_secs(5), "it is tried", async || {
        (bed.job(id).await["attempt"].as_i64() > Some(1)).then_some(())
    })
    .await;
    new.stop().await;
    eventually(Duration::from_secs(5), "it is handed back again", async || {
        let job = bed.job(id).await;
        (job["lane"] == "test/test.novel@1" && !job["unknown_since"].is_null()).then_some(())
    })
    .await;
    let waits = Duration::from_millis(1_500);
    holds_for(waits, "the old worker hopes for a new one", async || bed.state(id).await == "queued").await;
    let job = bed.becomes(id, "failed").await;
    let last = job["errors"].as_array().and_then(|errors| errors.last()).expect("an error");
    assert_eq!(last["kind"], serde_json::json!("unknown_kind"));
    old.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_no_new_worker_knows_fails_once_the_old_ones_are_gone() {
    let bed = Bed::new().await;
    let old = bed.worker();
    let newer = bed.another_queue(Release(2));
    let mut tx = newer.begin(streamspace_common::Actor::system(bed.tenant), Default::default());
    let id = enqueue(&mut tx, New).await.expect("enqueued").id;
    tx.commit().await.expect("committed");
    let new = bed.worker_of(newer, registry(), quick());
    eventually(Duration::from_secs(5), "it is handed back", async || {
        (bed.job(id).await["lane"] == "test/test.new@1").then_some(())
    })
    .await;
    holds_for(Duration::from_millis(1500), "it waits", async || bed.state(id).await == "queued").await;
    old.stop().await;
    bed.becomes(id, "failed").await;
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_nobody_will_ever_know_fails_at_once() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let id = bed.enqueue_with(New, Options::default()).await.id;
    let job = bed.becomes(id, "failed").await;
    assert_eq!(job["errors"][0]["kind"], serde_json::json!("unknown_kind"));
    worker.stop().await;
}

/// It stands still for as long as it likes: there is somebody who will run it.
#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_somebody_knows_by_now_waits_for_its_queue() {
    let bed = Bed::new().await;
    let options = WorkerOptions { unknown_after: Duration::from_secs(3), ..quick() };
    let old = bed.worker_with(options.clone());
    let newer = bed.another_queue(Release(2));
    let mut tx = newer.begin(streamspace_common::Actor::system(bed.tenant), Default::default());
    let id = enqueue(&mut tx, New).await.expect("enqueued").id;
    tx.commit().await.expect("committed");
    eventually(Duration::from_secs(5), "it is handed back", async || {
        (bed.job(id).await["lane"] == "test/test.new@1").then_some(())
    })
    .await;
    bed.execute(
        "insert into queue_controls (queue, tenant_id, paused_at, updated_at)
         values ('test', '00000000-0000-0000-0000-000000000001', now(), now())",
    )
    .await;
    let new = bed.worker_of(newer, registry().register::<New>(Arc::new(())), options);
    holds_for(Duration::from_secs(5), "it waits", async || bed.state(id).await == "queued").await;
    bed.execute("delete from queue_controls").await;
    bed.becomes(id, "succeeded").await;
    old.stop().await;
    new.stop().await;
}

/// Who knows the kind works in another queue, and whoever works in this one is no older than the job.
#[tokio::test(flavor = "multi_thread")]
async fn workers_of_other_queues_are_no_hope() {
    let bed = Bed::new().await;
    let elsewhere = WorkerOptions { queues: Some(vec!["elsewhere".into()]), ..quick() };
    let registry = registry().register::<New>(Arc::new(()));
    let knowing = bed.worker_of(bed.another_queue(Release(2)), registry.clone(), elsewhere.clone());
    let older = bed.worker_of(bed.another_queue(Release(0)), registry, elsewhere);
    eventually(Duration::from_secs(5), "they are there", async || {
        (bed.number("select count(*) from workers").await == 2).then_some(())
    })
    .await;
    let worker = bed.worker();
    let claimed = bed.enqueue(New).await;
    bed.becomes(claimed, "failed").await;
    // One that was handed back before.
    let before =
        bed.enqueue_with(New, Options { delay: Some(Duration::from_secs(3600)), ..Options::default() });
    let before = before.await.id;
    bed.execute(
        "update jobs set state = 'queued', lane = 'test/test.new@1', unknown_since = now() where state = 'scheduled'",
    )
    .await;
    bed.becomes(before, "failed").await;
    for stopping in [worker, knowing, older] {
        stopping.stop().await;
    }
}
