//! What 100,000 waiting jobs cost the memory of a worker whose slots are full, and of an API that is
//! asked about them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::StatusCode;
use streamspace_common::config::JobsConfig;
use streamspace_queue::Job;
use streamspace_testkit::{Postgres, Process};

use crate::{
    cpu,
    http::Connection,
    kinds::Doze,
    people,
    process::{self, Server},
    stage::{Stage, Turn},
    table::{Figure, Row},
};

const WAITING: i64 = 100_000;
const TENANTS: u128 = 20;

pub async fn measure(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    // Longer than a job, so that slots become free and are filled again.
    let watched = Duration::from_secs(if turn.rounds > 3 { 25 } else { 12 });
    let mut stage = Stage::new(postgres).await?;
    stage.template(Doze { n: 1 }).await?;
    let key = people::operators(&stage, 1).await?.swap_remove(0);
    let worker = process::worker(&stage, &[Doze::QUEUE]).await?;
    let api = Server::api(&stage).await?;

    let empty = most(&worker, &api, &key, watched).await?;
    let slots = i64::try_from(JobsConfig::default().concurrency)?;
    // So many wait at the end too.
    stage.fill(Doze::KIND, WAITING + 10 * slots, TENANTS, &[]).await?;
    stage.settle().await?;
    let filled = Instant::now();
    while stage.count("select count(*) from jobs where state = 'running'").await? < slots {
        ensure!(filled.elapsed() < Duration::from_secs(30), "the worker does not fill its slots");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let full = most(&worker, &api, &key, watched).await?;
    let waiting = stage.count("select count(*) from jobs where state = 'queued'").await?;
    ensure!(waiting >= WAITING, "only {waiting} jobs wait");
    worker.kill9().await;
    api.process.kill9().await;

    let row = |what: &str, full, empty| {
        Row::new(format!("{what}: memory, 100,000 jobs waiting"), Figure::Bytes(full))
            .against(Figure::Bytes(empty))
    };
    Ok(vec![
        row("a worker", full.worker, empty.worker)
            .note(format!("{slots} jobs of 10 s run; reference: with an empty queue")),
        row("an API", full.api, empty.api)
            .note("asked for pages and figures all the time; reference: with an empty queue"),
    ])
}

/// Resident memory of both, in bytes.
#[derive(Default)]
struct Memory {
    worker: u64,
    api: u64,
}

/// The most that they have while they are watched.
async fn most(worker: &Process, api: &Server, key: &str, watched: Duration) -> Result<Memory> {
    let mut client = Connection::open(api.address).await?;
    let (mut most, from) = (Memory::default(), Instant::now());
    while from.elapsed() < watched {
        for path in ["/api/v1/jobs?limit=200", "/api/v1/jobs/stats", "/api/v1/queues"] {
            let (status, body) = client.get(path, key).await?;
            ensure!(status == StatusCode::OK, "{path}: {status} {}", String::from_utf8_lossy(&body));
        }
        most.worker = most.worker.max(cpu::memory_of(worker.pid().unsigned_abs())?);
        most.api = most.api.max(cpu::memory_of(api.pid())?);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(most)
}
