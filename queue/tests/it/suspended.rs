//! Tenants whose jobs stand still.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use streamspace_common::TenantId;
use streamspace_queue::{
    Attempt, Done, Failure, Job, Options, Registry, Slot,
    inspect::{self, Scope},
};
use streamspace_testkit::{eventually, holds_for};

use crate::bed::{Act, Bed, What, act, effect, quick};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_suspended_tenant_starts_until_it_goes_on() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let runs = bed.enqueue(act(What::Wait(1_500))).await;
    bed.has_begun(runs).await;
    bed.set_active(bed.tenant, false).await;
    // The worker reads it within a second; what starts until then ends by itself.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(bed.enqueue(act(What::Nothing)).await);
    }
    let other = bed.enqueue_as(TenantId::new(), act(What::Nothing), Options::default()).await.id;
    bed.becomes(other, "succeeded").await;
    assert_eq!(bed.becomes(runs, "succeeded").await["attempt"], 1);
    let queued = "select count(*) from jobs where state = 'queued' and attempt = 0";
    holds_for(Duration::from_millis(1_500), "they wait", async || bed.number(queued).await == 3).await;
    bed.set_active(bed.tenant, true).await;
    for id in waiting {
        bed.becomes(id, "succeeded").await;
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_has_no_turn() {
    let bed = Bed::new().await;
    let (mine, suspended) = (bed.enqueue(act(What::Nothing)).await, TenantId::new());
    for tenant in [suspended, TenantId::new()] {
        bed.enqueue_as(tenant, act(What::Nothing), Options::default()).await;
    }
    let lanes = async || {
        let mut conn = bed.queue.read().await.expect("a connection");
        let waiting = inspect::waiting(&mut conn, Scope::Installation, mine).await.expect("read");
        waiting.and_then(|waiting| waiting.position).expect("it could be claimed").lanes
    };
    assert_eq!(lanes().await, 3);
    bed.set_active(suspended, false).await;
    assert_eq!(lanes().await, 2);
    bed.set_active(bed.tenant, false).await;
    assert_eq!(lanes().await, 2, "it counts itself");
}

/// One at a time in the whole installation.
#[derive(Serialize, Deserialize)]
struct Single {
    ms: u64,
}

impl Job for Single {
    const KIND: &'static str = "test.single";
    const QUEUE: &'static str = "test";
    type Ctx = ();

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::everywhere("single", 1)]
    }

    async fn run(self, (): &(), attempt: &Attempt) -> Result<Done, Failure> {
        effect(attempt, "start").await?;
        tokio::time::sleep(Duration::from_millis(self.ms)).await;
        Ok(Done::nothing())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_slot_is_promised_to_nobody_who_stands_still() {
    for suspended in [true, false] {
        let bed = Bed::new().await;
        let registry = Registry::new().register::<Single>(Arc::new(()));
        let worker = bed.worker_of(bed.queue.clone(), registry, quick());
        let (still, other) = (TenantId::new(), TenantId::new());
        let enqueue = async |tenant, ms| bed.enqueue_as(tenant, Single { ms }, Options::default()).await.id;
        let holder = enqueue(bed.tenant, 2_000).await;
        bed.has_begun(holder).await;
        for _ in 0..20 {
            enqueue(still, 1).await;
        }
        let waits = enqueue(other, 1).await;
        assert_eq!(bed.number("select count(*) from jobs where state = 'blocked'").await, 21);
        bed.set_active(still, !suspended).await;
        if !suspended {
            bed.execute(
                "insert into queue_controls (queue, tenant_id, paused_at, updated_at)
                 select 'test', id, now(), now() from tenants where slug like 't-%'",
            )
            .await;
        }
        bed.becomes(holder, "succeeded").await;
        eventually(Duration::from_secs(2), "the other's starts", async || {
            (bed.state(waits).await == "succeeded").then_some(())
        })
        .await;
        assert_eq!(bed.number("select count(*) from jobs where state = 'blocked'").await, 20);
        bed.execute("delete from queue_controls").await;
        bed.set_active(still, true).await;
        eventually(Duration::from_secs(15), "they go on", async || {
            (bed.number("select count(*) from jobs where state = 'succeeded'").await == 22).then_some(())
        })
        .await;
        worker.stop().await;
    }
}

/// A tenant's jobs that are left without their slot keep nobody else's from it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_lost_its_turn_is_no_holder() {
    let bed = Bed::new().await;
    let keyed = |what| Act { slots: vec![("k".into(), 1)], ..act(what) };
    let worker = bed.worker();
    let holder = bed.enqueue(keyed(What::Wait(500))).await;
    bed.has_begun(holder).await;
    let next = bed.enqueue(keyed(What::Nothing)).await;
    bed.set_active(bed.tenant, false).await;
    bed.becomes(holder, "succeeded").await;
    holds_for(Duration::from_millis(1_500), "it stands still", async || bed.state(next).await == "blocked")
        .await;
    bed.set_active(bed.tenant, true).await;
    bed.becomes(next, "succeeded").await;
    worker.stop().await;
}
