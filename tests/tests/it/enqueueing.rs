//! A job is there exactly when its transaction committed, and once per unique key.

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use streamspace_common::Actor;
use streamspace_queue::{self as queue, Request};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_visible_with_its_transaction_and_gone_with_it() -> Result<()> {
    let lab = Lab::new().await?;
    let _worker = lab.worker().start().await;
    let mut kept = lab.queue.begin(Actor::system(lab.tenant), Request::default());
    queue::enqueue(&mut kept, play([commit("kept")])).await?;
    let mut undone = lab.queue.begin(Actor::system(lab.tenant), Request::default());
    queue::enqueue(&mut undone, play([commit("undone")])).await?;
    holds_for(ms(300), "nothing starts before the commit", async || {
        lab.number("select count(*) from effects").await == 0
    })
    .await;
    undone.rollback().await?;
    kept.commit().await?;
    lab.sees("kept", 1, SOON).await;
    assert_eq!(lab.number("select count(*) from jobs").await, 1);
    assert_eq!(lab.effects_named("undone").await, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_parallel_enqueues_of_one_key_leave_one_job() -> Result<()> {
    let lab = Lab::new().await?;
    let start = Instant::now();
    let ids: Vec<_> = stream::iter(0..10_000)
        .map(|_| lab.enqueue(Play(Script::of([commit("effect")]).unique("the key"))))
        .buffer_unordered(64)
        .try_collect()
        .await?;
    report!("10,000 enqueues of one unique key took {:?}", start.elapsed());
    assert_eq!(lab.number("select count(*) from jobs").await, 1);
    assert!(ids.iter().all(|id| *id == ids[0]), "and all were told of the same one");

    // Once it is over the key is free.
    let _worker = lab.worker().start().await;
    lab.reaches(ids[0], "succeeded", SOON).await;
    let next = lab.enqueue(Play(Script::of([commit("effect")]).unique("the key"))).await?;
    assert_ne!(next, ids[0]);
    lab.reaches(next, "succeeded", SOON).await;
    Ok(())
}
