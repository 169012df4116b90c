//! Jobs per second, against the bare loop over the same rows.

use anyhow::Result;
use streamspace_queue::Job;
use streamspace_testkit::Postgres;

use crate::{
    bare, engine,
    kinds::{Nap, Noop, Spin},
    rounds::Rounds,
    stage::{Stage, Turn},
    table::{Figure, Row, Target},
};

/// Rows that no turn can use up.
const ENOUGH: i64 = 90_000;
const CONCURRENCIES: [usize; 2] = [10, 100];

pub async fn measure(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let mut stage = Stage::new(postgres).await?;
    stage.template(Noop { n: 1 }).await?;
    stage.template(Spin { n: 1 }).await?;
    stage.template(Nap { n: 1 }).await?;
    for kind in [Noop::KIND, Spin::KIND, Nap::KIND] {
        stage.top_up(kind, ENOUGH, 1).await?;
    }
    stage.settle().await?;

    let mut rounds = Rounds::new();
    for _ in 0..turn.rounds {
        for concurrency in CONCURRENCIES {
            stage.top_up(Noop::KIND, ENOUGH, 1).await?;
            rounds.pace("bare", bare::rate(&stage, bare::OF_ONE_TENANT, Noop::QUEUE, turn).await?);
            for (kind, queue) in
                [(Noop::KIND, Noop::QUEUE), (Spin::KIND, Spin::QUEUE), (Nap::KIND, Nap::QUEUE)]
            {
                stage.top_up(kind, ENOUGH, 1).await?;
                let pace = engine::rate(&stage, queue, concurrency, turn).await?;
                rounds.pace(&format!("{queue} {concurrency}"), pace);
            }
        }
    }

    let bare = rounds.median("bare");
    let cost = |name: &str| {
        let [own, server] = ["own", "server"].map(|of| rounds.median(&format!("{name} {of}")));
        format!("{own:.0} + {server:.0}")
    };
    let mut rows = Vec::new();
    for (queue, what) in [(Noop::QUEUE, "no-op jobs"), (Spin::QUEUE, "50 µs jobs"), (Nap::QUEUE, "5 ms jobs")]
    {
        for concurrency in CONCURRENCIES {
            let name = format!("{queue} {concurrency}");
            let note =
                format!("µs of processor a job, here + server: {}; bare: {}", cost(&name), cost("bare"));
            let row = Row::new(
                format!("{what}, concurrency {concurrency}"),
                Figure::PerSecond(rounds.median(&name)),
            );
            let row = row.note(note);
            rows.push(match (queue, concurrency) {
                (Noop::QUEUE, 100) => row.against(Figure::PerSecond(bare)).target(Target::AtLeast(0.9)),
                (Nap::QUEUE, _) => row
                    .against(Figure::PerSecond(concurrency as f64 / 0.005))
                    .note("reference: every slot always busy"),
                _ => row.against(Figure::PerSecond(bare)),
            });
        }
    }
    Ok(rows)
}
