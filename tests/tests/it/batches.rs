//! Work over many items: a crash in the middle repeats no finished item, and the counts stay true.

use anyhow::Result;
use streamspace_common::{Actor, JobId};
use streamspace_queue::{Request, batch};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_items_survive_crashes_in_the_middle() -> Result<()> {
    let lab = Lab::new().await?;
    let role = lab.worker().concurrency(8);
    let mut fleet = [role.start().await, role.start().await];
    let job = start(&lab, Count { deadly: vec![777, 4_321, 8_042] }).await?;
    eventually(Duration::from_secs(120), "the batch is done", async || {
        for worker in &mut fleet {
            if worker.status().is_some() {
                *worker = role.spawn();
            }
        }
        (lab.job(job).await.state == "succeeded").then_some(())
    })
    .await;

    assert_eq!(lab.number("select count(*) from effects where name like 'dies at %'").await, 3);
    let done = "select count(distinct name) from effects where name like 'item %'";
    let rows = "select count(*) from effects where name like 'item %'";
    assert_eq!((lab.number(done).await, lab.number(rows).await), (9_990, 9_990), "each item once");
    assert_eq!(counts(&lab, job).await?, (10_000, 9_990, 10, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_batch_cancels_what_has_not_started() -> Result<()> {
    let lab = Lab::new().await?;
    let _worker = lab.worker().concurrency(4).start().await;
    let job = start(&lab, Count { deadly: vec![] }).await?;
    lab.sees_number("select count(*) from effects", 500, LATER).await;
    lab.cancel(job).await?;
    lab.settles(LATER).await;
    assert_eq!(lab.job(job).await.state, "cancelled");
    let (total, succeeded, failed, cancelled) = counts(&lab, job).await?;
    assert_eq!((total, succeeded + failed + cancelled), (10_000, 10_000), "every item is accounted for");
    assert!(cancelled > 0 && succeeded >= 500, "{succeeded} {failed} {cancelled}");
    let rows = lab.number("select count(*) from effects where name like 'item %'").await;
    assert_eq!(rows, i64::from(succeeded), "what is counted is what was done");
    Ok(())
}

async fn start(lab: &Lab, batch: Count) -> Result<JobId> {
    let mut tx = lab.queue.begin(Actor::system(lab.tenant), Request::default());
    let job = batch::start(&mut tx, batch, 0..10_000, batch::BatchOptions::default()).await?;
    tx.commit().await?;
    Ok(job)
}

async fn counts(lab: &Lab, job: JobId) -> Result<(i32, i32, i32, i32)> {
    let sql = "select total, succeeded, failed, cancelled from job_batches where job_id = $1";
    Ok(sqlx::query_as(sql).bind(job).fetch_one(&lab.pool).await?)
}
