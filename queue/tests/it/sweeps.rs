//! Sweeps that somebody's lock holds up hold up nothing else.

use std::time::Duration;

use streamspace_common::JobId;
use streamspace_queue::enqueue;
use streamspace_testkit::{eventually, holds_for};

use crate::bed::{Act, Bed, What, act};

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_hangs_keeps_a_new_worker_neither_from_work_nor_from_seeing_who_died() {
    let bed = Bed::new().await;
    // Nobody knows its kind; whoever gives it up pauses at its key.
    bed.enqueue(Act { unique: Some("u".into()), ..act(What::Nothing) }).await;
    bed.execute(
        "update jobs set kind = 'test.gone', lane = 'test/test.gone@1', unknown_since = now() - interval '2 days';
         update job_keys set kind = 'test.gone';
         create function pause() returns boolean language plpgsql as $$ begin
           if current_query() like '%hopeless%' then perform pg_advisory_xact_lock(1); end if;
           return true;
         end $$;
         alter table job_keys rename to stored_keys;
         create view job_keys as select * from stored_keys where pause()",
    )
    .await;
    let mut pausing = bed.queue.db().begin().await.expect("a transaction");
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *pausing).await.expect("locked");

    let worker = bed.worker();
    bed.sees_waiting("%hopeless%").await;
    let ordinary = bed.enqueue(act(What::Nothing)).await;
    bed.becomes(ordinary, "succeeded").await;

    // Another worker died; in one transaction, for without its row the job is found in another way.
    let mut tx = bed.queue.begin(streamspace_common::Actor::system(bed.tenant), Default::default());
    let lost = enqueue(&mut tx, act(What::Nothing)).await.expect("enqueued").id;
    for sql in [
        "insert into workers (boot_id, host, pid, version, release, kinds, concurrency, started_at, beat_at)
         values (gen_random_uuid(), 'dead', 1, '1', 1, '{}', 1, now(), now())",
        "update jobs set state = 'running', attempt = 1, fence = 1, claimed_at = now(), started_at = now(),
                boot_id = (select boot_id from workers where host = 'dead')
         where state = 'queued' and kind = 'test.act'",
    ] {
        sqlx::query(sql).execute(tx.conn().await.expect("a connection")).await.expect(sql);
    }
    tx.commit().await.expect("committed");
    bed.becomes(lost, "succeeded").await;
    bed.sees_waiting("%hopeless%").await;
    pausing.rollback().await.expect("unlocked");
    worker.stop().await;
}

const LANES: &str = "with recursive lanes as%";

/// A worker whose look for lanes took so long that it rests, and a job that no notice tells of.
async fn unseen(bed: &Bed) -> JobId {
    let held = async || {
        let mut tx = bed.queue.db().begin().await.expect("a transaction");
        sqlx::query("lock table jobs in access exclusive mode").execute(&mut *tx).await.expect("locked");
        tx
    };
    let holding = held().await;
    bed.sees_waiting(LANES).await;
    // It rests for twenty times as long.
    tokio::time::sleep(Duration::from_secs(1)).await;
    holding.rollback().await.expect("unlocked");
    let mut conn = bed.queue.db().pool().acquire().await.expect("a connection");
    eventually(Duration::from_secs(5), "it has looked", async || {
        let looking: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and state = 'active' and query like $1",
        )
        .bind(LANES)
        .fetch_one(&mut *conn)
        .await
        .expect("read");
        (looking == 0).then_some(())
    })
    .await;
    let later = streamspace_queue::Options { delay: Some(Duration::from_secs(3600)), ..Default::default() };
    let job = bed.enqueue_with(act(What::Nothing), later).await.id;
    bed.execute("update jobs set state = 'queued', run_at = now(), order_at = now()").await;
    holds_for(Duration::from_secs(2), "nobody sees it", async || bed.state(job).await == "queued").await;
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_have_missed_notices_looks_for_lanes_however_dear_that_is() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let job = unseen(&bed).await;
    let cut = "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity
               where datname = current_database() and query like 'LISTEN%'";
    assert_eq!(bed.number(cut).await, 1);
    eventually(Duration::from_secs(4), "it is found", async || {
        (bed.state(job).await == "succeeded").then_some(())
    })
    .await;
    worker.stop().await;
}

/// Its claims were refused until it was known again, and count as answers of empty lanes.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_taken_for_dead_looks_for_lanes_when_it_is_back() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let job = unseen(&bed).await;
    bed.execute("delete from workers").await;
    eventually(Duration::from_secs(4), "it is found", async || {
        (bed.state(job).await == "succeeded").then_some(())
    })
    .await;
    worker.stop().await;
}
