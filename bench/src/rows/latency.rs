//! From the call of `enqueue` in one process to the start of the handler in another, the commit
//! included. Beside it what one commit takes: at least two lie on the way, the enqueuer's and the claim's.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::Executor;
use streamspace_common::Actor;
use streamspace_queue::{Job, Listen, Queue, enqueue, tx::Request};
use streamspace_testkit::{Percentiles, Postgres};

use crate::{
    engine::Worker,
    kinds::Stamped,
    stage::{Stage, Turn, tenant},
    table::{Figure, Row, Target},
};

pub async fn measure(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let stage = Stage::new(postgres).await?;
    let worker = Worker::start(&stage, Stamped::QUEUE, 32)?;
    // Another process as far as the worker can tell: only NOTIFY connects them.
    let other = stage.queue("bench enqueuer", Listen::default())?;
    send(&other, 20, Duration::from_millis(20)).await?;
    worker.has_done(20).await?;

    let jobs: u32 = if turn.rounds > 3 { 400 } else { 100 };
    let mut commits = commits(&stage).await?;
    let idle = run(&worker, &other, jobs, Duration::from_millis(25)).await?;
    let busy = run(&worker, &other, jobs * 6, Duration::from_micros(3333)).await?;
    commits.extend(self::commits(&stage).await?);
    other.close().await;
    worker.stop().await?;
    let commit = Percentiles::of(commits).p(95.0);
    let row = |what: &str, waits: &Percentiles, limit: u64| {
        let note = format!(
            "p50 {:.1?}, p99 {:.1?}; reference: an insert of one row, committed",
            waits.p(50.0),
            waits.p(99.0)
        );
        let row = Row::new(what, Figure::Time(waits.p(95.0))).against(Figure::Time(commit));
        row.target(Target::Within(Duration::from_millis(limit))).note(note)
    };
    Ok(vec![row("enqueue → start, idle: p95", &idle, 5), row("enqueue → start, at 300/s: p95", &busy, 10)])
}

/// How long the disk takes for one.
async fn commits(stage: &Stage) -> Result<Vec<Duration>> {
    let mut connection = stage.connect().await?;
    connection.execute("create table if not exists committed (n int)").await?;
    let mut times = Vec::new();
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let began = Instant::now();
        connection.execute("insert into committed values (1)").await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

async fn run(worker: &Worker, queue: &Queue, jobs: u32, every: Duration) -> Result<Percentiles> {
    worker.tally.waits.lock().expect("no panic while it was held").clear();
    let before = worker.tally.done();
    send(queue, jobs, every).await?;
    worker.has_done(before + u64::from(jobs)).await?;
    Ok(Percentiles::of(worker.tally.waits.lock().expect("no panic while it was held").clone()))
}

/// At fixed times, whether or not the one before is through.
async fn send(queue: &Queue, jobs: u32, every: Duration) -> Result<()> {
    let mut ticks = tokio::time::interval(every);
    let mut sent = tokio::task::JoinSet::new();
    for _ in 0..jobs {
        ticks.tick().await;
        let queue = queue.clone();
        sent.spawn(async move {
            let stamped = Stamped::now();
            let mut tx = queue.begin(Actor::system(tenant(0)), Request::default());
            enqueue(&mut tx, stamped).await?;
            anyhow::Ok(tx.commit().await?)
        });
    }
    while let Some(one) = sent.join_next().await {
        one??;
    }
    Ok(())
}
