//! From the request to cancel in one process to the handler's token in another.

use std::time::{Duration, Instant};

use anyhow::Result;
use streamspace_common::Actor;
use streamspace_queue::{Job, Listen, control, enqueue_many, inspect::Scope, tx::Request};
use streamspace_testkit::{Percentiles, Postgres};

use crate::{
    engine::Worker,
    kinds::Endless,
    stage::{Stage, Turn, tenant},
    table::{Figure, Row, Target},
};

pub async fn measure(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let jobs: u64 = if turn.rounds > 3 { 200 } else { 60 };
    let stage = Stage::new(postgres).await?;
    let worker = Worker::start(&stage, Endless::QUEUE, usize::try_from(jobs + 1)?)?;
    let other = stage.queue("bench canceller", Listen::default())?;
    let actor = Actor::system(tenant(0));
    let mut tx = other.begin(actor.clone(), Request::default());
    let ids = enqueue_many(&mut tx, (0..jobs).map(|n| Endless { n }), &streamspace_queue::Options::default())
        .await?;
    tx.commit().await?;
    worker.has_done(jobs).await?;

    let mut times = Vec::new();
    for id in ids {
        let asked = Instant::now();
        let mut tx = other.begin(actor.clone(), Request::default());
        control::cancel(&mut tx, Scope::Tenant(tenant(0)), id).await?;
        tx.commit().await?;
        let stopped = loop {
            if let Some(stopped) = worker.tally.cancelled.lock().expect("no panic while it was held").pop() {
                break stopped;
            }
            anyhow::ensure!(asked.elapsed() < Duration::from_secs(5), "a cancel was not delivered");
            tokio::time::sleep(Duration::from_micros(200)).await;
        };
        times.push(stopped - asked);
    }
    other.close().await;
    worker.stop().await?;
    let times = Percentiles::of(times);
    Ok(vec![
        Row::new("cancel across processes: p95", Figure::Time(times.p(95.0)))
            .target(Target::Within(Duration::from_millis(100)))
            .note(format!("p50 {:.1?}, p99 {:.1?}", times.p(50.0), times.p(99.0))),
    ])
}
