//! What a handler says, and what becomes of its job.

use std::time::Duration;

use serde_json::{Value, json};
use streamspace_common::{Actor, JobId};
use streamspace_queue::{Options, Request, control, inspect::Scope};
use streamspace_testkit::{eventually, holds_for};

use crate::bed::{Bed, What, act};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_and_keeps_its_result() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let id = bed.enqueue(act(What::Return(json!({"n": 1})))).await;
    let job = bed.becomes(id, "succeeded").await;
    assert_eq!(job["result"], json!({"n": 1}));
    assert_eq!((&job["attempt"], &job["boot_id"]), (&json!(1), &Value::Null));
    assert!(job["finished_at"].is_string() && job["started_at"].is_string());
    worker.stop().await;
    assert_eq!(bed.number("select count(*) from workers").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rolled_back_never_was() {
    let bed = Bed::new().await;
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    streamspace_queue::enqueue(&mut tx, act(What::Nothing)).await.expect("enqueued");
    tx.rollback().await.expect("rolled back");
    assert_eq!(bed.number("select count(*) from jobs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_back_off_and_keep_their_errors() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let id = bed.enqueue(act(What::RetryUntil(3))).await;
    let job = bed.becomes(id, "succeeded").await;
    assert_eq!(job["result"], json!(3));
    let errors = job["errors"].as_array().expect("errors");
    assert_eq!(errors.len(), 2);
    assert_eq!(errors[1]["attempt"], json!(2));
    assert!(errors[0]["at"].is_string());

    let hopeless = bed.enqueue(act(What::RetryUntil(99))).await;
    let job = bed.becomes(hopeless, "failed").await;
    assert_eq!(job["attempt"], json!(3));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_errors_and_panics() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let id = bed.enqueue(act(What::Permanent)).await;
    let job = bed.becomes(id, "failed").await;
    assert_eq!((&job["attempt"], &job["errors"][0]["message"]), (&json!(1), &json!("never")));
    let id = bed.enqueue(act(What::Panic)).await;
    let job = bed.becomes(id, "failed").await;
    assert_eq!(job["errors"][2]["kind"], json!("panic"));
    assert_eq!(job["errors"][2]["message"], json!("the handler panicked: on purpose"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_can_not_be_kept_leave_a_warning() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    for what in [What::Big, What::Nul] {
        let id = bed.enqueue(act(what)).await;
        let job = bed.becomes(id, "succeeded").await;
        assert_eq!(job["result"], Value::Null);
        assert!(job["warning"].as_str().expect("a warning").contains("dropped"), "{job}");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snoozing_burns_no_attempt() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let id = bed.enqueue(act(What::SnoozeOnce)).await;
    let job = bed.becomes(id, "succeeded").await;
    assert_eq!((&job["result"], &job["attempt"]), (&json!(1), &json!(1)));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_job_is_woken_by_its_event_or_its_timeout() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let slow = bed.enqueue(act(What::Park { timeout_ms: 60_000 })).await;
    bed.becomes(slow, "parked").await;
    let impatient = bed.enqueue(act(What::Park { timeout_ms: 100 })).await;
    let job = bed.becomes(impatient, "succeeded").await;
    assert_eq!(job["result"], json!("timeout"));

    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    sqlx::query("insert into effects (job, what) values (gen_random_uuid(), 'event')")
        .execute(tx.conn().await.expect("a connection"))
        .await
        .expect("inserted");
    tx.happened("it");
    tx.commit().await.expect("committed");
    let job = bed.becomes(slow, "succeeded").await;
    assert_eq!((&job["result"], &job["attempt"]), (&json!("event"), &json!(1)));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_slept_through() {
    // Events and parking race: whatever the order, nobody waits for the timeout.
    let bed = Bed::new().await;
    let worker = bed.worker();
    for _ in 0..30 {
        bed.execute("delete from effects").await;
        let id = bed.enqueue(act(What::Park { timeout_ms: 60_000 })).await;
        let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
        sqlx::query("insert into effects (job, what) values (gen_random_uuid(), 'event')")
            .execute(tx.conn().await.expect("a connection"))
            .await
            .expect("inserted");
        tx.happened("it");
        tokio::time::sleep(Duration::from_micros(rand::random_range(0..6_000))).await;
        tx.commit().await.expect("committed");
        let job = bed.becomes(id, "succeeded").await;
        assert_eq!(job["result"], json!("event"));
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_a_job_and_tells_its_event_does_not_deadlock_with_its_parking() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let id = bed.enqueue(act(What::ParkAfter(300))).await;
    streamspace_testkit::eventually(Duration::from_secs(5), "it works", async || {
        (!bed.effects(id).await.is_empty()).then_some(())
    })
    .await;
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    let conn = tx.conn().await.expect("a connection");
    sqlx::query("update jobs set row_version = row_version + 1 where id = $1")
        .bind(id.0)
        .execute(&mut *conn)
        .await
        .expect("changed");
    sqlx::query("insert into effects (job, what) values (gen_random_uuid(), 'event')")
        .execute(conn)
        .await
        .expect("inserted");
    tx.happened("it");
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    streamspace_testkit::eventually(Duration::from_secs(5), "it parks", async || {
        (bed.number(waiting).await > 0).then_some(())
    })
    .await;
    // Long enough that a deadlock would be this transaction's to find.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    tx.commit().await.expect("no deadlock");
    assert_eq!(bed.becomes(id, "succeeded").await["result"], json!("event"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waited_in_vain_knows_it_after_a_hand_back_and_a_rescue() {
    let bed = Bed::new().await;
    let stopped_at_once = streamspace_queue::WorkerOptions {
        shutdown_timeout: Duration::ZERO,
        concurrency: 10,
        ..crate::bed::quick()
    };
    for dies in [false, true] {
        let worker = bed.worker_with(stopped_at_once.clone());
        let id = bed.enqueue(act(What::WaitAfterTimeout)).await;
        streamspace_testkit::eventually(Duration::from_secs(5), "it waits", async || {
            (!bed.effects(id).await.is_empty()).then_some(())
        })
        .await;
        if dies {
            bed.execute("delete from workers").await;
            let job = bed.becomes(id, "succeeded").await;
            assert_eq!((&job["result"], &job["attempt"]), (&json!("timeout"), &json!(2)));
            worker.stop().await;
        } else {
            worker.stop().await;
            let next = bed.worker();
            let job = bed.becomes(id, "succeeded").await;
            assert_eq!((&job["result"], &job["attempt"]), (&json!("timeout"), &json!(1)));
            next.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_takes_too_long_is_stopped_and_retried() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let id = bed
        .enqueue_with(act(What::Wait(60_000)), Options { max_attempts: Some(1), ..Options::default() })
        .await
        .id;
    let job = bed.becomes(id, "failed").await;
    assert_eq!(job["errors"][0]["kind"], json!("timeout"));
    assert_eq!(bed.effects(id).await, ["start", "stopped"]);
    // One that ignores its token is dropped at its next await.
    let id = bed
        .enqueue_with(
            act(What::IgnoreCancel(60_000)),
            Options { max_attempts: Some(1), ..Options::default() },
        )
        .await
        .id;
    bed.becomes(id, "failed").await;
    assert!(bed.effects(id).await.is_empty());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_and_its_completion_are_one() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    for what in [What::Commit, What::CommitThenFail] {
        let id = bed.enqueue(act(what)).await;
        let job = bed.becomes(id, "succeeded").await;
        assert_eq!(job["attempt"], json!(1));
        holds_for(Duration::from_millis(200), "it stays so", async || bed.state(id).await == "succeeded")
            .await;
        assert_eq!(bed.effects(id).await, ["commit"]);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_not_repeated() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let id = bed.enqueue(act(What::Steps)).await;
    let job = bed.becomes(id, "succeeded").await;
    assert_eq!(job["attempt"], json!(2));
    assert_eq!(bed.effects(id).await, ["a", "b", "c"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_checkpoints_survive() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let id = bed.enqueue(act(What::Progress)).await;
    streamspace_testkit::eventually(Duration::from_secs(3), "progress is seen", async || {
        (bed.job(id).await["progress"]["percent"] == json!(75.0)).then_some(())
    })
    .await;
    let job = bed.becomes(id, "succeeded").await;
    assert_eq!(job["progress"]["percent"], json!(100.0));
    let id = bed.enqueue(act(What::Checkpoint)).await;
    assert_eq!(bed.becomes(id, "succeeded").await["result"], json!(42));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_burns_no_attempt() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(bed.enqueue_with(act(What::Wait(1_900)), Options::default()).await.id);
    }
    streamspace_testkit::eventually(Duration::from_secs(5), "nine run", async || {
        (bed.number("select count(*) from jobs where state = 'running'").await == 9).then_some(())
    })
    .await;
    let options = streamspace_queue::WorkerOptions {
        shutdown_timeout: Duration::ZERO,
        concurrency: 10,
        ..crate::bed::quick()
    };
    worker.stop().await;
    assert_eq!(bed.number("select count(*) from jobs where state = 'running'").await, 0);
    let second = bed.worker_with(options);
    streamspace_testkit::eventually(Duration::from_secs(5), "some run again", async || {
        (bed.number("select count(*) from jobs where state = 'running'").await > 0).then_some(())
    })
    .await;
    second.stop().await;
    assert_eq!(bed.number("select count(*) from jobs where state = 'queued' and attempt <> 0").await, 0);
    assert_eq!(bed.number("select count(*) from jobs where state in ('queued', 'succeeded')").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_jobs_start_when_due_and_not_before() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let options = Options { delay: Some(Duration::from_millis(400)), ..Options::default() };
    let id = bed.enqueue_with(act(What::Nothing), options).await.id;
    assert_eq!(bed.state(id).await, "scheduled");
    bed.becomes(id, "succeeded").await;
    let late = bed.number("select (extract(epoch from started_at - run_at) * 1000)::bigint from jobs").await;
    assert!((0..100).contains(&late), "{late} ms after its time");
    worker.stop().await;
}

/// Runs a job to its end, however far off its retries are. Returned is its row.
async fn hurried(bed: &Bed, id: JobId) -> serde_json::Value {
    let hurry = "update jobs set run_at = queue.now() where state = 'retrying'";
    eventually(Duration::from_secs(60), "it is over", async || {
        bed.execute(hurry).await;
        let job = bed.job(id).await;
        matches!(job["state"].as_str(), Some("succeeded" | "failed")).then_some(job)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_of_our_own_database_cost_no_attempt_unless_they_never_end() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let once = Options { max_attempts: Some(1), ..Options::default() };
    let passing = bed.enqueue_with(act(What::Outages(10)), once.clone()).await.id;
    let job = hurried(&bed, passing).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(1)));
    assert_eq!(job["errors"][0]["kind"], "outage");
    let lasting = bed.enqueue_with(act(What::Outages(100)), once).await.id;
    let job = hurried(&bed, lasting).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("failed"), &json!(1)));
    // It would begin anew at once.
    worker.stop().await;
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    control::retry(&mut tx, Scope::Tenant(bed.tenant), lasting).await.expect("retried");
    tx.commit().await.expect("committed");
    assert_eq!(bed.job(lasting).await["errors"].as_array().map(Vec::len).unwrap_or(0), 0, "a new beginning");
}
