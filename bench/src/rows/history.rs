//! What the past costs: a million finished rows, their deletion, and an old snapshot that keeps
//! every dead row and index entry. Each against the same engine in a young database.

use std::time::Duration;

use anyhow::Result;
use sqlx::Connection;
use streamspace_queue::{
    Job,
    retention::{Retention, prune_jobs},
};
use streamspace_testkit::Postgres;
use tokio_util::sync::CancellationToken;

use crate::{
    engine,
    kinds::Noop,
    rounds::Rounds,
    stage::{FINISHED, Stage, Turn},
    table::{Figure, Row, Target},
};

const BACKLOG: i64 = 90_000;
const CONCURRENCY: usize = 100;

pub async fn measure(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let finished = if turn.rounds > 3 { 1_000_000 } else { 200_000 };
    let mut young = stage(postgres, 0).await?;
    let mut old = stage(postgres, finished).await?;
    let mut held = stage(postgres, 0).await?;
    let mut snapshot = held.connect().await?;
    let mut snapshot = snapshot.begin().await?;
    sqlx::query("set transaction isolation level repeatable read").execute(&mut *snapshot).await?;
    sqlx::query("select count(*) from tenants").execute(&mut *snapshot).await?;

    let mut rounds = Rounds::new();
    let mut deleted = 0;
    for _ in 0..turn.rounds {
        rounds.record("young", rate(&mut young, turn).await?);
        rounds.record("old", rate(&mut old, turn).await?);
        let stop = CancellationToken::new();
        let pruning = tokio::spawn(prune(old.url().to_owned(), stop.clone()));
        rounds.record("pruned", rate(&mut old, turn).await?);
        stop.cancel();
        deleted += pruning.await??;
        rounds.record("held", rate(&mut held, turn).await?);
    }
    snapshot.rollback().await?;

    let row = |what: String, name: &str| {
        Row::new(what, Figure::PerSecond(rounds.median(name)))
            .against(Figure::PerSecond(rounds.median("young")))
            .target(Target::AtLeast(0.9))
            .note("reference: the engine in a young database")
    };
    Ok(vec![
        row(format!("no-op at 100, {finished} finished rows"), "old"),
        row(format!("no-op at 100, while they are deleted ({deleted} were)"), "pruned"),
        row("no-op at 100, a snapshot held all the time".to_owned(), "held"),
    ])
}

async fn stage(postgres: &Postgres, finished: i64) -> Result<Stage> {
    let mut stage = Stage::new(postgres).await?;
    stage.template(Noop { n: 1 }).await?;
    stage.fill(Noop::KIND, finished, 1, &FINISHED).await?;
    stage.top_up(Noop::KIND, BACKLOG, 1).await?;
    stage.settle().await?;
    Ok(stage)
}

async fn rate(stage: &mut Stage, turn: Turn) -> Result<f64> {
    stage.top_up(Noop::KIND, BACKLOG, 1).await?;
    Ok(engine::rate(stage, Noop::QUEUE, CONCURRENCY, turn).await?.rate)
}

/// Deletes as the job that prunes does: one small step after the other, with a pause as long as the
/// step, until it is told to stop.
async fn prune(url: String, stop: CancellationToken) -> Result<u64> {
    let mut connection = sqlx::PgConnection::connect(&url).await?;
    let retention = Retention { succeeded: Duration::from_secs(24 * 3600), ..Retention::default() };
    let (mut deleted, mut after) = (0, None);
    while !stop.is_cancelled() {
        let began = std::time::Instant::now();
        let pruned = prune_jobs(&mut connection, &retention, after).await?;
        deleted += pruned.deleted;
        after = pruned.next;
        tokio::time::sleep(began.elapsed()).await;
    }
    Ok(deleted)
}
