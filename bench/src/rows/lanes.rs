//! What lanes and fairness cost. For one tenant: claims from its lane's index against claims from an
//! index of one order for all. For many: the engine against itself with as many rows in one lane.

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
    Ok(vec![one_lane(postgres, turn).await?].into_iter().chain(many_lanes(postgres, turn).await?).collect())
}

async fn one_lane(postgres: &Postgres, turn: Turn) -> Result<Row> {
    let mut on = stage(postgres, 1).await?;
    let mut off = stage(postgres, 1).await?;
    off.execute("drop index jobs_claim").await?;
    off.execute("create index jobs_claim on jobs (lane, order_at, id) where state = 'queued'").await?;
    off.settle().await?;
    let mut rounds = Rounds::new();
    for _ in 0..turn.rounds {
        for (name, stage, claim) in [("on", &mut on, bare::OF_ONE_TENANT), ("off", &mut off, bare::OF_ALL)] {
            stage.top_up(Noop::KIND, BACKLOG, 1).await?;
            rounds.record(name, bare::rate(stage, claim, Noop::QUEUE, turn).await?.rate);
        }
    }
    Ok(Row::new("claims from a lane, 1 tenant", Figure::PerSecond(rounds.median("on")))
        .against(Figure::PerSecond(rounds.median("off")))
        .target(Target::AtLeast(0.9))
        .note("the bare loop on both sides; reference: claims in one order for all"))
}

async fn many_lanes(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let mut stages = Vec::new();
    for tenants in [1, 20, 1000] {
        stages.push((tenants, stage(postgres, tenants).await?));
    }
    let mut rounds = Rounds::new();
    for _ in 0..turn.rounds {
        for (tenants, stage) in &mut stages {
            stage.top_up(Noop::KIND, BACKLOG, *tenants).await?;
            let pace = engine::rate(stage, Noop::QUEUE, 100, turn).await?;
            rounds.record(&tenants.to_string(), pace.rate);
        }
    }
    let row = |tenants: &str| {
        Row::new(format!("no-op at 100, {tenants} tenants"), Figure::PerSecond(rounds.median(tenants)))
            .against(Figure::PerSecond(rounds.median("1")))
            .target(Target::AtLeast(0.8))
            .note("reference: the engine with as many rows in one lane")
    };
    Ok(vec![row("20"), row("1000")])
}

async fn stage(postgres: &Postgres, tenants: u128) -> Result<Stage> {
    let mut stage = Stage::new(postgres).await?;
    stage.template(Noop { n: 1 }).await?;
    stage.top_up(Noop::KIND, BACKLOG, tenants).await?;
    stage.settle().await?;
    Ok(stage)
}
