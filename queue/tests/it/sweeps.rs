//! Sweeps that somebody's lock holds up hold up nothing else.

use streamspace_queue::enqueue;

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
