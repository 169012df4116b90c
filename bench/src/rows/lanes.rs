//! Lanes and fairness against claims in one order for all tenants, from an index made for them.

use anyhow::Result;
use streamspace_queue::Job;
use streamspace_testkit::Postgres;

use crate::{
    bare, engine,
    kinds::Noop,
    rounds::Rounds,
    stage::{Stage, Turn},
    table::{Figure, Row, Target},
};

const BACKLOG: i64 = 90_000;

pub async fn measure(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (tenants, least) in [(1, 0.9), (20, 0.8), (1000, 0.8)] {
        let mut on = stage(postgres, tenants).await?;
        let mut off = stage(postgres, tenants).await?;
        off.execute("drop index jobs_claim").await?;
        off.execute("create index jobs_claim on jobs (lane, order_at, id) where state = 'queued'").await?;
        off.settle().await?;
        let mut rounds = Rounds::new();
        for _ in 0..turn.rounds {
            off.top_up(Noop::KIND, BACKLOG, tenants).await?;
            rounds.record("off", bare::rate(&off, bare::OF_ALL, Noop::QUEUE, turn).await?.rate);
            on.top_up(Noop::KIND, BACKLOG, tenants).await?;
            rounds.record("on", engine::rate(&on, Noop::QUEUE, 100, turn).await?.rate);
        }
        let what = format!("no-op at 100, {tenants} tenant{}", if tenants == 1 { "" } else { "s" });
        rows.push(
            Row::new(what, Figure::PerSecond(rounds.median("on")))
                .against(Figure::PerSecond(rounds.median("off")))
                .target(Target::AtLeast(least))
                .note("reference: bare claims in one order for all"),
        );
    }
    Ok(rows)
}

async fn stage(postgres: &Postgres, tenants: u128) -> Result<Stage> {
    let mut stage = Stage::new(postgres).await?;
    stage.template(Noop { n: 1 }).await?;
    stage.top_up(Noop::KIND, BACKLOG, tenants).await?;
    stage.settle().await?;
    Ok(stage)
}
