//! What goes and what stays.

use std::time::Duration;

use streamspace_queue::{
    Options,
    retention::{self, Retention},
};

use crate::bed::{Bed, What, act};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_when_they_have_been_over_for_their_time() {
    let bed = Bed::new().await;
    bed.execute(
        "insert into jobs (id, tenant_id, run_at, order_at, created_at, finished_at, release, timeout_ms, max_attempts,
                           state, kind, queue, lane, creator_type, args)
         select ('019a0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, gen_random_uuid(), now(), now(), now(),
                now() - make_interval(hours => n / 6),
                1, 1, 1, (array['succeeded', 'failed', 'cancelled', 'queued', 'running', 'parked'])[n % 6 + 1]::job_state,
                'test', 'test', 'test', 'system', '{}'
         from generate_series(0, 1199) n",
    )
    .await;
    bed.execute(
        "insert into job_steps (job_id, step, at) select id, 'a', now() from jobs;
         insert into job_batches (job_id, tenant_id, total) select id, tenant_id, 1 from jobs;
         insert into job_batch_items (batch_id, item_no, item) select id, 0, '{}' from jobs",
    )
    .await;
    let retention = Retention { succeeded: 50 * HOUR, failed: 150 * HOUR, cancelled: 100 * HOUR };
    let mut conn = bed.queue.read().await.expect("a connection");
    let (mut after, mut deleted, mut steps) = (None, 0, 0);
    loop {
        let pruned = retention::prune_jobs(&mut conn, &retention, after).await.expect("pruned");
        deleted += pruned.deleted;
        steps += 1;
        match pruned.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    // Finished n / 6 hours ago: those of more than their hours are gone, and nothing that is not over.
    assert_eq!((deleted, steps), (150 + 50 + 100, 3));
    assert_eq!(bed.number("select count(*) from jobs").await, 900);
    assert_eq!(
        bed.number(
            "select count(*) from jobs where state = 'succeeded' and finished_at < now() - interval '50 h'"
        )
        .await,
        0
    );
    for left in [
        "select count(*) from job_steps",
        "select count(*) from job_batches",
        "select count(*) from job_batch_items",
    ] {
        assert_eq!(bed.number(left).await, 900, "{left}");
    }
    // Again: nothing.
    let pruned = retention::prune_jobs(&mut conn, &retention, None).await.expect("pruned");
    assert_eq!(pruned.deleted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn young_jobs_are_not_even_looked_at() {
    let bed = Bed::new().await;
    for _ in 0..3 {
        bed.enqueue_with(act(What::Nothing), Options::default()).await;
    }
    let mut conn = bed.queue.read().await.expect("a connection");
    let pruned = retention::prune_jobs(&mut conn, &Retention::default(), None).await.expect("pruned");
    assert_eq!((pruned.deleted, pruned.next), (0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_events_go_when_their_time_is_over() {
    let bed = Bed::new().await;
    bed.execute(
        "insert into job_keys values (gen_random_uuid(), 'k', 'over', gen_random_uuid(), now() - interval '1 s'),
                                     (gen_random_uuid(), 'k', 'kept', gen_random_uuid(), now() + interval '1 h'),
                                     (gen_random_uuid(), 'k', 'held', gen_random_uuid(), null);
         insert into job_events values (gen_random_uuid(), 'old', '3', now() - interval '25 h'),
                                       (gen_random_uuid(), 'new', '3', now())",
    )
    .await;
    let mut conn = bed.queue.read().await.expect("a connection");
    assert!(!retention::prune_leftovers(&mut conn).await.expect("pruned"), "nothing is left to do");
    assert_eq!(bed.number("select count(*) from job_keys").await, 2);
    assert_eq!(bed.number("select count(*) from job_events").await, 1);
    retention::keep_months(&mut conn).await.expect("kept");
}
