//! Concurrency keys and unique keys.

use std::time::Duration;

use streamspace_common::{Actor, JobId};
use streamspace_queue::{Options, Request};
use streamspace_testkit::eventually;

use crate::bed::{Act, Bed, What, act, quick};

fn keyed(ms: u64, limit: i16) -> Act {
    Act { slots: vec![("k".into(), limit)], ..act(What::Wait(ms)) }
}

/// The most that ever ran at the same time, from the effects.
const OVERLAP: &str = "select coalesce(max(n), 0)::bigint from (
    select sum(case what when 'start' then 1 else -1 end) over (order by at) as n from effects) x";

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
