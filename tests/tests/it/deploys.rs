//! Old and new workers side by side: work that only the new release knows waits for it.

use anyhow::Result;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_new_kind_wait_for_the_new_worker_and_none_is_buried() -> Result<()> {
    let lab = Lab::new().await?;
    let old = lab.worker().release(1).named("old").start().await;
    let novel = lab.enqueue_by_release(2, (0..50).map(|_| Novel(Script::of([commit("novel")])))).await?;
    let known = lab.enqueue_many((0..50).map(|_| play([commit("known")]))).await?;
    for job in known {
        lab.reaches(job, "succeeded", SOON).await;
    }
    holds_for(ms(1_500), "the old worker neither runs nor buries what it does not know", async || {
        lab.number("select count(*) from jobs where kind = 'lab.novel' and state = 'queued' and attempt = 0")
            .await
            >= 49
    })
    .await;
    // Handed back jobs are out of the old worker's way: it is not busy claiming them again and again.
    eventually(SOON, "each was handed back once", async || {
        let handed_back = "select count(*) from jobs where kind = 'lab.novel' and unknown_since is not null";
        (lab.number(handed_back).await == 50).then_some(())
    })
    .await;
    let fences = lab.number("select sum(fence) from jobs where kind = 'lab.novel'").await;
    holds_for(ms(1_500), "and then left alone", async || {
        lab.number("select sum(fence) from jobs where kind = 'lab.novel'").await == fences
    })
    .await;

    let _new = lab.worker().release(2).named("new").start().await;
    for job in novel {
        assert_eq!(lab.reaches(job, "succeeded", SOON).await.attempt, 1, "no attempt was burned");
    }
    lab.once_each("novel", 50).await;
    assert!(old.status().is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_of_a_newer_version_waits_for_a_worker_that_reads_it() -> Result<()> {
    let lab = Lab::new().await?;
    let _old = lab.worker().release(1).named("old").start().await;
    let one = lab.enqueue(EvolvedV1 {}).await?;
    let two = lab.enqueue_by_release(2, [EvolvedV2 { added: Some("new".into()) }]).await?[0];
    lab.reaches(one, "succeeded", SOON).await;
    holds_for(ms(1_000), "it waits", async || lab.effects(two).await.is_empty()).await;
    assert_eq!(lab.job(two).await.state, "queued");
    let _new = lab.worker().release(2).named("new").start().await;
    lab.reaches(two, "succeeded", SOON).await;
    assert_eq!(lab.effects(two).await, [r#"read by 2: Some("new")"#]);
    Ok(())
}
