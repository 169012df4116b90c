//! What a worker costs that has nothing to do.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{Executor, PgConnection, Row as _};
use streamspace_queue::Job;
use streamspace_testkit::{Postgres, Process};

use crate::{
    cpu,
    kinds::Noop,
    process,
    stage::{Stage, Turn},
    table::{Figure, Row},
};

pub async fn measure(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let watched = Duration::from_secs(if turn.rounds > 3 { 15 } else { 5 });
    let stage = Stage::new(postgres).await?;
    stage.execute("create extension pg_stat_statements").await?;
    stage.settle().await?;
    let mut connection = stage.connect().await?;

    let worker = process::worker(&stage, &[Noop::QUEUE]).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (calls, used, from) = (calls(&mut connection).await?, used(&worker)?, Instant::now());
    tokio::time::sleep(watched).await;
    let seconds = from.elapsed().as_secs_f64();
    let statements = (self::calls(&mut connection).await? - calls) as f64 / seconds;
    let percent = (used_since(&worker, used)?).as_secs_f64() / seconds * 100.0;
    worker.kill9().await;
    Ok(vec![
        Row::new("an idle worker: statements", Figure::PerSecond(statements)),
        Row::new("an idle worker: processor", Figure::Count(percent, "% of a core")),
    ])
}

fn used(worker: &Process) -> Result<Duration> {
    cpu::of(&worker.pid().to_string())
}

fn used_since(worker: &Process, before: Duration) -> Result<Duration> {
    Ok(used(worker)?.saturating_sub(before))
}

/// Statements that others than this connection have run in this database.
async fn calls(connection: &mut PgConnection) -> Result<i64> {
    let row = connection
        .fetch_one(
            "select coalesce(sum(calls), 0)::bigint from pg_stat_statements
             where dbid = (select oid from pg_database where datname = current_database())
               and query not like '%pg_stat_statements%'",
        )
        .await?;
    Ok(row.get(0))
}
