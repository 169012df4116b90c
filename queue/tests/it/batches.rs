//! Work over many items.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use streamspace_common::{Actor, JobId};
use streamspace_queue::{
    Failure, Registry, Request,
    batch::{self, Batch, BatchError, BatchOptions, ItemAttempt, ItemDone},
    control,
    inspect::{self, BatchCounts, JobRow, Scope},
};
use streamspace_testkit::eventually;

use crate::bed::{Bed, Running, quick};

/// Writes its number down. Some items fail, some at first only, some take long.
#[derive(Clone, Serialize, Deserialize)]
struct Count {
    slow_ms: u64,
}

#[derive(Default)]
struct Seen {
    tried: AtomicUsize,
    /// Items in work: a chunk does one at a time, so that many chunks run.
    running: AtomicUsize,
    most: AtomicUsize,
    flaky: Mutex<Vec<u32>>,
}

/// One item in work.
struct InWork<'a>(&'a Seen);

impl<'a> InWork<'a> {
    fn begin(seen: &'a Seen) -> Self {
        let running = seen.running.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(running, Ordering::SeqCst);
        Self(seen)
    }
}

impl Drop for InWork<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Batch for Count {
    const KIND: &'static str = "test.count";
    const CHUNK_KIND: &'static str = "test.count_chunk";
    const QUEUE: &'static str = "test";
    type Item = u32;
    type Ctx = Seen;

    async fn item(&self, seen: &Seen, item: u32, at: &ItemAttempt<'_>) -> Result<ItemDone, Failure> {
        seen.tried.fetch_add(1, Ordering::SeqCst);
        let _in_work = InWork::begin(seen);
        if item % 100 == 13 {
            return Err(Failure::permanent(format!("{item} brings bad luck")));
        }
        if item % 1_000 == 500 {
            let mut flaky = seen.flaky.lock().expect("no panic while it was held");
            if !flaky.contains(&item) {
                flaky.push(item);
                return Err(Failure::retry("not yet"));
            }
        }
        if self.slow_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.slow_ms)).await;
        }
        at.commit(async |tx| {
            sqlx::query("insert into effects (job, what) values ($1, $2)")
                .bind(at.attempt().id().0)
                .bind(item.to_string())
                .execute(tx.conn().await?)
                .await
        })
        .await
    }
}

async fn start(bed: &Bed, items: u32, slow_ms: u64, options: BatchOptions) -> JobId {
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    let job = batch::start(&mut tx, Count { slow_ms }, 0..items, options).await.expect("started");
    tx.commit().await.expect("committed");
    job
}

fn worker(bed: &Bed, seen: &Arc<Seen>) -> Running {
    let registry = Registry::new().register_batch::<Count>(seen.clone());
    bed.worker_of(bed.queue.clone(), registry, quick())
}

async fn job(bed: &Bed, id: JobId) -> JobRow {
    let mut conn = bed.queue.read().await.expect("a connection");
    inspect::get(&mut conn, Scope::Tenant(bed.tenant), id).await.expect("read").expect("the job")
}

async fn ends(bed: &Bed, id: JobId) -> JobRow {
    eventually(Duration::from_secs(30), "the batch ends", async || {
        Some(job(bed, id).await).filter(|job| job.state.is_terminal())
    })
    .await
}

const EFFECTS: &str = "select count(*) from effects";
const TWICE: &str = "select count(*) from (select from effects group by what having count(*) > 1) twice";

#[tokio::test(flavor = "multi_thread")]
async fn every_item_is_done_once_and_counted() {
    let bed = Bed::new().await;
    let seen = Arc::new(Seen::default());
    let running = worker(&bed, &seen);
    let id = start(&bed, 2_050, 0, BatchOptions::default()).await;
    let ended = ends(&bed, id).await;
    assert_eq!(ended.state.as_str(), "succeeded", "{ended:?}");
    // 13, 113, … 2013 fail; 500 and 1500 are tried twice.
    let counts = BatchCounts { total: 2_050, succeeded: 2_029, failed: 21, cancelled: 0 };
    assert_eq!(ended.batch, Some(counts));
    assert_eq!(ended.result, Some(serde_json::to_value(counts).expect("JSON")));
    assert_eq!((bed.number(EFFECTS).await, bed.number(TWICE).await), (2_029, 0));
    assert_eq!(seen.tried.load(Ordering::SeqCst), 2_052);
    let mut conn = bed.queue.read().await.expect("a connection");
    let errors = batch::errors(&mut conn, id, Some(13), 2).await.expect("read");
    assert_eq!(errors.iter().map(|error| error.number).collect::<Vec<_>>(), [113, 213]);
    assert_eq!(errors[0].error, "113 brings bad luck");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_items_are_taken_in_within_a_second_and_no_more() {
    let bed = Bed::new().await;
    start(&bed, 10, 0, BatchOptions::default()).await;
    let began = Instant::now();
    start(&bed, 10_000, 0, BatchOptions::default()).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    let refused = batch::start(&mut tx, Count { slow_ms: 0 }, 0..10_001, BatchOptions::default()).await;
    assert!(matches!(refused, Err(BatchError::TooMany(10_001))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_batch_is_over_at_once() {
    let bed = Bed::new().await;
    let running = worker(&bed, &Arc::default());
    let id = start(&bed, 0, 0, BatchOptions::default()).await;
    let ended = ends(&bed, id).await;
    assert_eq!(ended.batch, Some(BatchCounts::default()));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_stopped_in_the_middle_repeat_no_finished_item() {
    let bed = Bed::new().await;
    let seen = Arc::new(Seen::default());
    let id = start(&bed, 400, 3, BatchOptions::default()).await;
    let mut stops = 0;
    while !job(&bed, id).await.state.is_terminal() {
        let options = streamspace_queue::WorkerOptions {
            concurrency: 4,
            shutdown_timeout: Duration::from_millis(10),
            ..quick()
        };
        let registry = Registry::new().register_batch::<Count>(seen.clone());
        let running = bed.worker_of(bed.queue.clone(), registry, options);
        tokio::time::sleep(Duration::from_millis(250)).await;
        running.stop().await;
        stops += 1;
        assert!(stops < 60, "it does not get on");
    }
    assert!(stops > 1, "nothing was interrupted");
    let ended = job(&bed, id).await;
    assert_eq!(ended.batch, Some(BatchCounts { total: 400, succeeded: 396, failed: 4, cancelled: 0 }));
    assert_eq!((bed.number(EFFECTS).await, bed.number(TWICE).await), (396, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_what_has_not_begun_and_tells_what_was_done() {
    let bed = Bed::new().await;
    let seen = Arc::new(Seen::default());
    let running = worker(&bed, &seen);
    let id =
        start(&bed, 1_000, 20, BatchOptions { max_concurrency: Some(2), ..BatchOptions::default() }).await;
    eventually(Duration::from_secs(10), "some are done", async || {
        (bed.number(EFFECTS).await > 10).then_some(())
    })
    .await;
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    let cancelled = control::cancel(&mut tx, Scope::Tenant(bed.tenant), id).await.expect("cancelled");
    tx.commit().await.expect("committed");
    assert!(cancelled.state.is_terminal(), "{cancelled:?}");
    let unfinished = "select count(*) from jobs where state not in ('succeeded', 'failed', 'cancelled')";
    eventually(Duration::from_secs(10), "all chunks end", async || {
        (bed.number(unfinished).await == 0).then_some(())
    })
    .await;
    let counts = job(&bed, id).await.batch.expect("a batch");
    assert_eq!(counts.processed(), 1_000, "{counts:?}");
    assert!(counts.cancelled > 800, "{counts:?}");
    assert_eq!(i64::from(counts.succeeded), bed.number(EFFECTS).await);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_chunks_run_than_were_asked_for() {
    let bed = Bed::new().await;
    let seen = Arc::new(Seen::default());
    let running = worker(&bed, &seen);
    let id = start(&bed, 600, 1, BatchOptions { max_concurrency: Some(2), ..BatchOptions::default() }).await;
    ends(&bed, id).await;
    assert_eq!(seen.most.load(Ordering::SeqCst), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_batch_that_is_retried_does_what_was_not_begun() {
    let bed = Bed::new().await;
    let seen = Arc::new(Seen::default());
    let running = worker(&bed, &seen);
    let id = start(&bed, 300, 10, BatchOptions::default()).await;
    eventually(Duration::from_secs(10), "some are done", async || {
        (bed.number(EFFECTS).await > 10).then_some(())
    })
    .await;
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    control::cancel(&mut tx, Scope::Tenant(bed.tenant), id).await.expect("cancelled");
    tx.commit().await.expect("committed");
    let counts = eventually(Duration::from_secs(5), "it is cancelled", async || {
        job(&bed, id).await.batch.filter(|counts| counts.cancelled > 100)
    })
    .await;
    assert!(counts.succeeded < 200, "{counts:?}");

    // At once, while its chunks still stop.
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    let retried = control::retry(&mut tx, Scope::Tenant(bed.tenant), id).await.expect("retried");
    tx.commit().await.expect("committed");
    assert_eq!(retried.batch.map(|counts| counts.cancelled), Some(0));
    let ended = ends(&bed, id).await;
    assert_eq!(ended.state.as_str(), "succeeded", "{ended:?}");
    let counts = BatchCounts { total: 300, succeeded: 297, failed: 3, cancelled: 0 };
    assert_eq!(ended.batch, Some(counts));
    assert_eq!((bed.number(EFFECTS).await, bed.number(TWICE).await), (297, 0));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_ends_without_counting_does_not_hold_up_the_batch() {
    let bed = Bed::new().await;
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3_600);
    let id = start(&bed, 300, 10, BatchOptions { run_at: Some(later), ..BatchOptions::default() }).await;
    assert_eq!(job(&bed, id).await.state.as_str(), "scheduled");
    // The maintenance window opens, and an operator cancels one chunk before it starts.
    bed.execute(
        "insert into queue_controls (queue, tenant_id, max_running, updated_at)
         values ('test', '00000000-0000-0000-0000-000000000001', 1, now());
         update jobs set run_at = now()",
    )
    .await;
    // It knows the limit before it claims anything.
    let running = worker(&bed, &Arc::default());
    let chunk = eventually(Duration::from_secs(5), "a chunk waits", async || {
        sqlx::query_scalar::<_, uuid::Uuid>(
            "select id from jobs where kind = 'test.count_chunk' and state = 'queued' order by id desc limit 1",
        )
        .fetch_optional(bed.queue.db().pool())
        .await
        .expect("read")
    })
    .await;
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    control::cancel(&mut tx, Scope::Tenant(bed.tenant), JobId(chunk)).await.expect("cancelled");
    tx.commit().await.expect("committed");
    bed.execute("delete from queue_controls").await;
    let ended = ends(&bed, id).await;
    let counts = ended.batch.expect("a batch");
    assert_eq!((counts.processed(), counts.cancelled), (300, 0), "{counts:?}");
    assert_eq!(counts.failed, 2 + 100, "{counts:?}");
    running.stop().await;
}
