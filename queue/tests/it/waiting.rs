//! "Why is it waiting?"

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamspace_common::{Actor, JobId, PLATFORM, TenantId};
use streamspace_queue::{
    Attempt, Done, Failure, Job, Options, Release, Request, State, enqueue,
    inspect::{self, Position, Reason, Scope, Waiting},
    queues::{self, ChangeQueue},
};
use streamspace_testkit::eventually;

use crate::bed::{Act, Bed, What, act};

async fn ask(bed: &Bed, id: JobId) -> Option<Waiting> {
    let mut conn = bed.queue.read().await.expect("a connection");
    inspect::waiting(&mut conn, Scope::Tenant(bed.tenant), id).await.expect("read")
}

async fn tenant(bed: &Bed) {
    sqlx::query("insert into tenants (id, name, slug) values ($1, 'T', 't')")
        .bind(bed.tenant.0)
        .execute(bed.queue.db().pool())
        .await
        .expect("a tenant");
}

async fn set(bed: &Bed, owner: TenantId, change: ChangeQueue) {
    let mut tx = bed.queue.begin(Actor::system(owner), Request::default());
    queues::set(&mut tx, owner, "test", &change).await.expect("set");
    tx.commit().await.expect("committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_in_the_lane_and_who_shares_the_queue() {
    let bed = Bed::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(bed.enqueue(act(What::Nothing)).await);
    }
    bed.enqueue_as(TenantId::new(), act(What::Nothing), Options::default()).await;
    let third = ask(&bed, ids[2]).await.expect("it waits");
    assert_eq!(third.position, Some(Position { place: 3, or_more: false, lanes: 2 }));
    assert_eq!(third.reasons, [Reason::NoWorker]);

    let priority = Options { priority: 50, ..Options::default() };
    let urgent = bed.enqueue_with(act(What::Nothing), priority).await.id;
    assert_eq!(ask(&bed, urgent).await.and_then(|w| w.position).map(|p| p.place), Some(1));
    assert_eq!(ask(&bed, ids[2]).await.and_then(|w| w.position).map(|p| p.place), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_counted_to_a_thousand() {
    let bed = Bed::new().await;
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    let jobs = (0..1_200).map(|_| act(What::Nothing));
    let ids = streamspace_queue::enqueue_many(&mut tx, jobs, &Options::default()).await.expect("enqueued");
    tx.commit().await.expect("committed");
    let place = async |id| ask(&bed, id).await.and_then(|w| w.position).map(|p| (p.place, p.or_more));
    assert_eq!(place(ids[998]).await, Some((999, false)));
    assert_eq!(place(ids[1_100]).await, Some((1_000, true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_blocks_it_is_named() {
    let bed = Bed::new().await;
    tenant(&bed).await;
    let worker = bed.worker();
    eventually(Duration::from_secs(5), "the worker is there", async || {
        (bed.number("select count(*) from workers").await == 1).then_some(())
    })
    .await;

    let later = Options { delay: Some(Duration::from_secs(60)), ..Options::default() };
    let delayed = bed.enqueue_with(act(What::Nothing), later).await.id;
    let waiting = ask(&bed, delayed).await.expect("it waits");
    assert!(matches!(waiting.reasons[..], [Reason::RunAt { .. }]), "{waiting:?}");
    assert_eq!((waiting.state, waiting.position), (State::Scheduled, None));

    let parked = bed.enqueue(act(What::Park { timeout_ms: 60_000 })).await;
    bed.becomes(parked, "parked").await;
    let waiting = ask(&bed, parked).await.expect("it waits");
    assert!(matches!(&waiting.reasons[..], [Reason::Event { key, .. }] if key == "it"), "{waiting:?}");

    let keyed = || Act { slots: vec![("disk".into(), 1)], ..act(What::Wait(1_900)) };
    let holder = bed.enqueue(keyed()).await;
    eventually(Duration::from_secs(5), "the holder runs", async || {
        (!bed.effects(holder).await.is_empty()).then_some(())
    })
    .await;
    let blocked = bed.enqueue(keyed()).await;
    let waiting = ask(&bed, blocked).await.expect("it waits");
    assert_eq!(waiting.state, State::Queued);
    assert_eq!(waiting.reasons, [Reason::ConcurrencyKey { key: "disk".into(), held_by: vec![holder] }]);
    assert_eq!(ask(&bed, holder).await, None, "what runs waits for nothing");

    set(&bed, PLATFORM, ChangeQueue { max_running: Some(Some(0)), ..ChangeQueue::default() }).await;
    set(&bed, bed.tenant, ChangeQueue { paused: Some(true), ..ChangeQueue::default() }).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stuck = bed.enqueue(act(What::Nothing)).await;
    let waiting = ask(&bed, stuck).await.expect("it waits");
    assert_eq!(
        waiting.reasons,
        [Reason::MaxRunning { limit: 0, everyone: true }, Reason::QueuePaused { everyone: false }]
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_is_used_up_is_named() {
    let bed = Bed::new().await;
    tenant(&bed).await;
    let rate = "1/h".parse().expect("a rate");
    set(&bed, bed.tenant, ChangeQueue { rate: Some(Some(rate)), ..ChangeQueue::default() }).await;
    let worker = bed.worker();
    for _ in 0..2 {
        bed.enqueue(act(What::Nothing)).await;
    }
    eventually(Duration::from_secs(5), "one is started", async || {
        (bed.number("select count(*) from jobs where state = 'succeeded'").await == 1).then_some(())
    })
    .await;
    let late = bed.enqueue(act(What::Nothing)).await;
    let waiting = ask(&bed, late).await.expect("it waits");
    assert_eq!(waiting.reasons, [Reason::RateLimit { count: 1, period_ms: 3_600_000, everyone: false }]);
    worker.stop().await;
}

#[derive(Serialize, Deserialize)]
struct Novel;

impl Job for Novel {
    const KIND: &'static str = "test.novel";
    const QUEUE: &'static str = "test";
    type Ctx = ();
    async fn run(self, (): &(), _: &Attempt) -> Result<Done, Failure> {
        Ok(Done::nothing())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_no_worker_knows_is_named() {
    let bed = Bed::new().await;
    let worker = bed.worker();
    let mut tx = bed.another_queue(Release(2)).begin(Actor::system(bed.tenant), Request::default());
    let id = enqueue(&mut tx, Novel).await.expect("enqueued").id;
    tx.commit().await.expect("committed");
    eventually(Duration::from_secs(5), "it is handed back", async || {
        (bed.job(id).await["lane"] == "test/test.novel@1").then_some(())
    })
    .await;
    let waiting = ask(&bed, id).await.expect("it waits");
    assert_eq!((waiting.state, &waiting.reasons[..]), (State::Queued, &[Reason::UnknownKind][..]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn controls_are_removed_when_they_say_nothing() {
    let bed = Bed::new().await;
    tenant(&bed).await;
    let rate = "50/s".parse().expect("a rate");
    set(
        &bed,
        bed.tenant,
        ChangeQueue { paused: Some(true), max_running: Some(Some(3)), rate: Some(Some(rate)) },
    )
    .await;
    set(&bed, bed.tenant, ChangeQueue { paused: Some(false), ..ChangeQueue::default() }).await;
    let mut conn = bed.queue.read().await.expect("a connection");
    let scope = Scope::Tenant(bed.tenant);
    let queue = queues::get(&mut conn, scope, &["test"], "test").await.expect("read").expect("a queue");
    assert_eq!(
        (queue.tenant.paused_at, queue.tenant.max_running, queue.tenant.rate),
        (None, Some(3), Some(rate))
    );
    assert_eq!(queue.everyone, queues::Controls::default());
    let others = Scope::Tenant(TenantId::new());
    let queue = queues::get(&mut conn, others, &["test"], "test").await.expect("read").expect("a queue");
    assert_eq!(queue.tenant, queues::Controls::default());
    assert_eq!(queues::get(&mut conn, others, &["test"], "nowhere").await.expect("read"), None);

    set(&bed, bed.tenant, ChangeQueue { max_running: Some(None), rate: Some(None), ..Default::default() })
        .await;
    assert_eq!(bed.number("select count(*) from queue_controls").await, 0);
}
