//! Queues paused and limited over the fleet.

use std::time::Duration;

use streamspace_common::TenantId;
use streamspace_queue::{Options, Release, WorkerOptions};
use streamspace_testkit::{eventually, holds_for};

use crate::bed::{Bed, OVERLAP, What, act, quick, registry};

const DONE: &str = "select count(*) from jobs where state = 'succeeded'";

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_starts_nothing() {
    let bed = Bed::new().await;
    bed.execute(
        "insert into queue_controls (queue, tenant_id, paused_at, updated_at)
         values ('test', '00000000-0000-0000-0000-000000000001', now(), now())",
    )
    .await;
    let worker = bed.worker();
    eventually(Duration::from_secs(5), "the worker is there", async || {
        (bed.number("select count(*) from workers").await == 1).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let id = bed.enqueue(act(What::Nothing)).await;
    holds_for(Duration::from_millis(500), "it waits", async || bed.state(id).await == "queued").await;
    bed.execute("delete from queue_controls").await;
    bed.becomes(id, "succeeded").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_run_than_the_queue_allows() {
    let bed = Bed::new().await;
    bed.execute(
        "insert into queue_controls (queue, tenant_id, max_running, updated_at)
         values ('test', '00000000-0000-0000-0000-000000000001', 2, now())",
    )
    .await;
    for _ in 0..10 {
        bed.enqueue(act(What::Wait(60))).await;
    }
    let first = bed.worker();
    let second = bed.worker_of(bed.another_queue(Release(1)), registry(), quick());
    eventually(Duration::from_secs(15), "all are done", async || {
        (bed.number(DONE).await == 10).then_some(())
    })
    .await;
    assert_eq!(bed.number(OVERLAP).await, 2);
    first.stop().await;
    second.stop().await;
}

/// What one tenant may not start now keeps no other from starting, though both are under one limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_limit_closes_the_queue_to_no_other() {
    let bed = Bed::new().await;
    bed.execute(
        "insert into queue_controls (queue, tenant_id, max_running, updated_at)
         values ('test', '00000000-0000-0000-0000-000000000001', 50, now())",
    )
    .await;
    limit_tenant(&bed, "rate_count, rate_period_ms) select 'test', id, now(), 1, 60000 from t").await;
    let worker = bed.worker();
    let first = bed.enqueue(act(What::Nothing)).await;
    bed.becomes(first, "succeeded").await;
    let second = bed.enqueue(act(What::Nothing)).await;
    holds_for(Duration::from_millis(1500), "it waits", async || bed.state(second).await == "queued").await;
    let other = bed.enqueue_as(TenantId::new(), act(What::Nothing), Options::default()).await.id;
    eventually(Duration::from_secs(1), "another tenant's starts", async || {
        (bed.state(other).await == "succeeded").then_some(())
    })
    .await;
    assert_eq!(bed.state(second).await, "queued");
    worker.stop().await;
}

/// The limit is met again each time that the other's turn comes.
#[tokio::test(flavor = "multi_thread")]
async fn no_backlog_keeps_another_tenant_from_a_limited_queue() {
    let bed = Bed::new().await;
    bed.execute(
        "insert into queue_controls (queue, tenant_id, max_running, updated_at)
         values ('test', '00000000-0000-0000-0000-000000000001', 1, now())",
    )
    .await;
    let first = bed.enqueue(act(What::Wait(50))).await;
    for _ in 0..29 {
        bed.enqueue(act(What::Wait(50))).await;
    }
    let worker = bed.worker_with(WorkerOptions { concurrency: 3, ..quick() });
    eventually(Duration::from_secs(5), "the first runs", async || {
        (!bed.effects(first).await.is_empty()).then_some(())
    })
    .await;
    let other = bed.enqueue_as(TenantId::new(), act(What::Nothing), Options::default()).await.id;
    eventually(Duration::from_secs(15), "all are done", async || {
        (bed.number(DONE).await == 31).then_some(())
    })
    .await;
    let after: i64 = sqlx::query_scalar(
        "select count(*) from jobs j join jobs o on o.id = $1 where j.finished_at > o.finished_at",
    )
    .bind(other.0)
    .fetch_one(bed.queue.db().pool())
    .await
    .expect("read");
    assert!(after > 0, "the other's came last");
    worker.stop().await;
}

/// It keeps its place at the front, but not the others behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_at_its_own_limit_holds_up_nobody() {
    let bed = Bed::new().await;
    bed.execute(
        "insert into queue_controls (queue, tenant_id, max_running, updated_at)
         values ('test', '00000000-0000-0000-0000-000000000001', 50, now())",
    )
    .await;
    limit_tenant(&bed, "max_running) select 'test', id, now(), 1 from t").await;
    let (first, other) = (bed.enqueue(act(What::Wait(1_800))).await, TenantId::new());
    bed.enqueue(act(What::Nothing)).await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(bed.enqueue_as(other, act(What::Nothing), Options::default()).await.id);
    }
    // Besides the job that runs and the place that is kept, room for one.
    let worker = bed.worker_with(WorkerOptions { concurrency: 3, ..quick() });
    for id in others {
        bed.becomes(id, "succeeded").await;
    }
    assert_eq!(bed.state(first).await, "running");
    worker.stop().await;
}

/// Whose turn it is may have nothing any more: cancels tell no lane. The place goes to the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_lanes_without_jobs_are_offered_goes_to_one_with() {
    let bed = Bed::new().await;
    bed.execute(
        "insert into queue_controls (queue, tenant_id, max_running, updated_at)
         values ('test', '00000000-0000-0000-0000-000000000001', 1, now())",
    )
    .await;
    let worker = bed.worker();
    let holder = bed.enqueue(act(What::Wait(1_000))).await;
    bed.becomes(holder, "running").await;
    // More of them than the end of the holder tells of.
    for _ in 0..30 {
        bed.enqueue_as(TenantId::new(), act(What::Nothing), Options::default()).await;
    }
    let other = TenantId::new();
    bed.enqueue_as(other, act(What::Nothing), Options::default()).await;
    let waiting = bed.enqueue_as(other, act(What::Nothing), Options::default()).await.id;
    let cancel = "update jobs set state = 'cancelled', fence = fence + 1, finished_at = queue.now()
                  where state = 'queued' and id <> $1";
    sqlx::query(cancel).bind(waiting.0).execute(bed.queue.db().pool()).await.expect("cancelled");
    bed.becomes(holder, "succeeded").await;
    bed.becomes(waiting, "succeeded").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_raised_holds_within_a_second() {
    let bed = Bed::new().await;
    limit_tenant(&bed, "rate_count, rate_period_ms) select 'test', id, now(), 1, 60000 from t").await;
    let worker = bed.worker();
    let first = bed.enqueue(act(What::Nothing)).await;
    bed.becomes(first, "succeeded").await;
    let second = bed.enqueue(act(What::Nothing)).await;
    holds_for(Duration::from_millis(500), "it waits", async || bed.state(second).await == "queued").await;
    bed.execute("update queue_controls set rate_count = 100, rate_period_ms = 1000").await;
    eventually(Duration::from_millis(1800), "it starts", async || {
        (bed.state(second).await == "succeeded").then_some(())
    })
    .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept_by_the_fleet() {
    let bed = Bed::new().await;
    bed.execute(
        "insert into queue_controls (queue, tenant_id, rate_count, rate_period_ms, updated_at)
         values ('test', '00000000-0000-0000-0000-000000000001', 40, 1000, now())",
    )
    .await;
    for _ in 0..120 {
        bed.enqueue(act(What::Nothing)).await;
    }
    let first = bed.worker();
    let second = bed.worker_of(bed.another_queue(Release(1)), registry(), quick());
    eventually(Duration::from_secs(15), "all are done", async || {
        (bed.number(DONE).await == 120).then_some(())
    })
    .await;
    let took = bed
        .number("select (extract(epoch from max(claimed_at) - min(claimed_at)) * 1000)::bigint from jobs")
        .await;
    assert!((2_600..3_700).contains(&took), "120 jobs at 40/s took {took} ms");
    first.stop().await;
    second.stop().await;
}

/// Limits the bed's tenant alone.
async fn limit_tenant(bed: &Bed, columns: &str) {
    let sql = format!(
        "with t as (insert into tenants (id, name, slug) values ('{0}', 'T', 't') returning id)
         insert into queue_controls (queue, tenant_id, updated_at, {columns}",
        bed.tenant.0
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(bed.queue.db().pool()).await.expect("limited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_limit_is_its_own() {
    let bed = Bed::new().await;
    limit_tenant(&bed, "max_running) select 'test', id, now(), 1 from t").await;
    let other = TenantId::new();
    for _ in 0..5 {
        bed.enqueue(act(What::Wait(100))).await;
        bed.enqueue_as(other, act(What::Wait(100)), Options::default()).await;
    }
    let first = bed.worker();
    let second = bed.worker_of(bed.another_queue(Release(1)), registry(), quick());
    eventually(Duration::from_secs(15), "all are done", async || {
        (bed.number(DONE).await == 10).then_some(())
    })
    .await;
    // The most that ran at the same time, from the effects.
    let most = async |is: &str| -> i64 {
        let sql = format!(
            "select max(n)::bigint from (
               select sum(case e.what when 'start' then 1 else -1 end) over (order by e.at) as n
               from effects e join jobs j on j.id = e.job where j.tenant_id {is} '{}') x",
            bed.tenant.0
        );
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(bed.queue.db().pool()).await.expect("read")
    };
    assert_eq!(most("=").await, 1);
    assert!(most("<>").await > 1, "the others' is not limited");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_rate_is_its_own() {
    let bed = Bed::new().await;
    limit_tenant(&bed, "rate_count, rate_period_ms) select 'test', id, now(), 20, 1000 from t").await;
    let other = TenantId::new();
    for _ in 0..60 {
        bed.enqueue(act(What::Nothing)).await;
        bed.enqueue_as(other, act(What::Nothing), Options::default()).await;
    }
    let worker = bed.worker();
    eventually(Duration::from_secs(15), "all are done", async || {
        (bed.number(DONE).await == 120).then_some(())
    })
    .await;
    let took: Vec<i64> = sqlx::query_scalar(
        "select (extract(epoch from max(claimed_at) - min(claimed_at)) * 1000)::bigint from jobs
         group by tenant_id order by tenant_id = $1",
    )
    .bind(bed.tenant.0)
    .fetch_all(bed.queue.db().pool())
    .await
    .expect("read");
    assert!(took[0] < 1_900, "60 jobs of another tenant took {} ms", took[0]);
    assert!((2_400..4_000).contains(&took[1]), "60 jobs at 20/s took {} ms", took[1]);
    worker.stop().await;
}
