//! Depths, ages and statistics.

use std::time::Duration;

use streamspace_common::{BootId, TenantId};
use streamspace_queue::{
    Options, depth,
    inspect::{self, Scope},
};

use crate::bed::{Bed, What, act};

#[tokio::test(flavor = "multi_thread")]
async fn depths_are_what_is_there() {
    let bed = Bed::new().await;
    let other = TenantId::new();
    for _ in 0..3 {
        bed.enqueue(act(What::Nothing)).await;
    }
    bed.enqueue_as(other, act(What::Nothing), Options::default()).await;
    let later = Options { delay: Some(Duration::from_secs(60)), ..Options::default() };
    bed.enqueue_with(act(What::Nothing), later).await;
    let elsewhere = Options { queue: Some("elsewhere".into()), ..Options::default() };
    bed.enqueue_with(act(What::Nothing), elsewhere).await;
    bed.execute(
        "update jobs set run_at = run_at - interval '90 s' where state = 'queued' and queue = 'test'",
    )
    .await;

    let mut conn = bed.queue.read().await.expect("a connection");
    depth::recount(&mut conn).await.expect("counted");
    let mut depths = depth::depths(&mut conn).await.expect("read");
    depths.sort_by(|a, b| a.queue.cmp(&b.queue));
    let waiting: Vec<_> = depths.iter().map(|depth| (depth.queue.as_str(), depth.waiting)).collect();
    assert_eq!(waiting, [("elsewhere", 1), ("test", 4)]);
    assert!((90.0..100.0).contains(&depths[1].oldest_age_seconds), "{depths:?}");

    let stats = inspect::stats(&mut conn, Scope::Tenant(bed.tenant)).await.expect("read");
    let test = stats.queues.iter().find(|queue| queue.queue == "test").expect("the queue");
    assert_eq!((test.queued, test.delayed, test.running), (3, 1, 0));
    assert_eq!(stats.finished.of, 5);

    // What is gone is gone at the next count, however it went.
    bed.execute("delete from jobs").await;
    depth::recount(&mut conn).await.expect("counted");
    assert_eq!(depth::depths(&mut conn).await.expect("read"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_counts_until_it_gives_up_or_falls_silent() {
    let bed = Bed::new().await;
    let (first, second) = (BootId::new(), BootId::new());
    let lease = Duration::from_secs(8);
    let mut conn = bed.queue.read().await.expect("a connection");
    assert!(depth::hold(&mut conn, depth::DUTY, first, lease).await.expect("asked"));
    assert!(!depth::hold(&mut conn, depth::DUTY, second, lease).await.expect("asked"));
    assert!(depth::hold(&mut conn, depth::DUTY, first, lease).await.expect("asked"));

    bed.execute("update leases set until = now() - interval '1 s'").await;
    assert!(depth::hold(&mut conn, depth::DUTY, second, lease).await.expect("asked"));
    // The database's clock was an hour ahead when the lease was taken.
    bed.execute("update leases set until = now() + interval '1 h'").await;
    assert!(depth::hold(&mut conn, depth::DUTY, first, lease).await.expect("asked"));

    depth::release(&mut conn, depth::DUTY, second).await.expect("released");
    assert!(!depth::hold(&mut conn, depth::DUTY, second, lease).await.expect("asked"), "it was not its own");
    depth::release(&mut conn, depth::DUTY, first).await.expect("released");
    assert!(depth::hold(&mut conn, depth::DUTY, second, lease).await.expect("asked"));
}
