//! A hundred thousand rows that wait for one concurrency key, and what they cost other jobs' claims.

use std::time::Duration;

use anyhow::Result;
use sqlx::{Executor, Row as _};
use streamspace_queue::Job;
use streamspace_testkit::Postgres;

use crate::{
    engine::{self, Worker},
    kinds::{Keyed, Noop},
    rounds::Rounds,
    stage::{Change, Stage, Turn},
    table::{Figure, Row, Target},
};

const BACKLOG: i64 = 60_000;
const BLOCKED: i64 = 100_000;
const WAITING: [Change; 2] = [("state", "'blocked'"), ("blocked_on", "'*/bench'")];

pub async fn measure(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let mut free = stage(postgres).await?;
    let mut crowded = stage(postgres).await?;
    crowded.template(Keyed { n: 1 }).await?;
    crowded.fill(Keyed::KIND, 1, 1, &[]).await?;
    crowded.fill(Keyed::KIND, BLOCKED, 1, &WAITING).await?;
    crowded.settle().await?;
    // Runs the one that holds the slot, for as long as the measuring takes. Its net may let another one
    // go before the slot is taken; with room beside the one kept for newcomers it puts that one back.
    let holder = Worker::start(&crowded, Keyed::QUEUE, 4)?;
    let mut rounds = Rounds::new();
    for _ in 0..turn.rounds {
        rounds.record("free", claim_time(&mut free, turn).await?);
        rounds.record("crowded", claim_time(&mut crowded, turn).await?);
    }
    let blocked = crowded.count("select count(*) from jobs where state = 'blocked'").await?;
    anyhow::ensure!(blocked == BLOCKED, "{blocked} rows are blocked, not {BLOCKED}");
    holder.stop_now().await;
    let figure = |name| Figure::Time(Duration::from_secs_f64(rounds.median(name) / 1e3));
    Ok(vec![
        Row::new("a claim, while 100,000 rows wait for one key", figure("crowded"))
            .against(figure("free"))
            .target(Target::AtMost(1.1))
            .note("mean of the statement at concurrency 100; reference: without them"),
    ])
}

async fn stage(postgres: &Postgres) -> Result<Stage> {
    let mut stage = Stage::new(postgres).await?;
    stage.execute("create extension pg_stat_statements").await?;
    stage.template(Noop { n: 1 }).await?;
    stage.top_up(Noop::KIND, BACKLOG, 1).await?;
    stage.settle().await?;
    Ok(stage)
}

/// The mean time of the claiming statement while a worker is busy, in milliseconds.
async fn claim_time(stage: &mut Stage, turn: Turn) -> Result<f64> {
    stage.top_up(Noop::KIND, BACKLOG, 1).await?;
    let mut connection = stage.connect().await?;
    connection.execute("select pg_stat_statements_reset()").await?;
    engine::rate(stage, Noop::QUEUE, 100, turn).await?;
    let row = connection
        .fetch_one(
            "select total_exec_time / calls from pg_stat_statements
             where query like '%picked as materialized%' and dbid = (select oid from pg_database where datname = current_database())
             order by calls desc limit 1",
        )
        .await?;
    Ok(row.get(0))
}
