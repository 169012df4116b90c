//! Enqueuing transactions against the same transactions with a plain insert of the same row.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use futures::future::BoxFuture;
use sqlx::{PgPool, postgres::PgPoolOptions};
use streamspace_common::Actor;
use streamspace_queue::{Job, Listen, Options, Queue, Release, enqueue, enqueue_many, tx::Request};
use streamspace_testkit::Postgres;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    kinds::Noop,
    rounds::Rounds,
    stage::{Stage, Turn, tenant},
    table::{Figure, Row, Target},
};

const BATCH: u64 = 500;
const PLAIN: &str =
    "insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms, max_attempts,
                   state, version, priority, unique_mode, kind, queue, lane, creator_type, args)
 values ($1, $2, now(), now(), now(), $3, $4, $5, 'queued', 1, 0, 0, $6, $7, $7, 'system', $8)";
const PLAIN_BATCH: &str =
    "insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms, max_attempts,
                   state, version, priority, unique_mode, kind, queue, lane, creator_type, args)
 select u.id, $2, now(), now(), now(), $3, $4, $5, 'queued', 1, 0, 0, $6, $7, $7, 'system', u.args
 from unnest($1::uuid[], $8::jsonb[]) as u(id, args)";

pub async fn measure(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let stage = Stage::new(postgres).await?;
    let queue = stage.queue("bench enqueuer", Listen::default())?;
    let pool = PgPoolOptions::new().max_connections(42).connect(stage.url()).await?;
    let mut rounds = Rounds::new();
    for _ in 0..turn.rounds {
        for (name, tasks, jobs) in [("32", 32, 1), ("500", 4, BATCH)] {
            let plain = {
                let pool = pool.clone();
                rate(turn, tasks, jobs, move || Box::pin(insert(pool.clone(), jobs))).await?
            };
            let ours = {
                let queue = queue.clone();
                rate(turn, tasks, jobs, move || Box::pin(enqueue_jobs(queue.clone(), jobs))).await?
            };
            rounds.record(&format!("plain {name}"), plain);
            rounds.record(&format!("ours {name}"), ours);
        }
    }
    pool.close().await;
    queue.close().await;
    let row = |what: &str, name: &str| {
        Row::new(what, Figure::PerSecond(rounds.median(&format!("ours {name}"))))
            .against(Figure::PerSecond(rounds.median(&format!("plain {name}"))))
            .target(Target::AtLeast(0.9))
            .note("reference: plain inserts")
    };
    Ok(vec![row("enqueue, 32 transactions at once", "32"), row("enqueue, batches of 500, 4 at once", "500")])
}

/// Jobs per second of so many tasks that each do one transaction after the other.
async fn rate(
    turn: Turn,
    tasks: usize,
    jobs: u64,
    transaction: impl Fn() -> BoxFuture<'static, Result<()>> + Clone + Send + Sync + 'static,
) -> Result<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + turn.warm_up + turn.window;
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let (done, transaction) = (done.clone(), transaction.clone());
        running.spawn(async move {
            while Instant::now() < until {
                transaction().await?;
                done.fetch_add(jobs, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    tokio::time::sleep(turn.warm_up).await;
    let (from, before) = (Instant::now(), done.load(Ordering::Relaxed));
    tokio::time::sleep(turn.window.saturating_sub(Duration::from_millis(50))).await;
    let rate = (done.load(Ordering::Relaxed) - before) as f64 / from.elapsed().as_secs_f64();
    while let Some(task) = running.join_next().await {
        task??;
    }
    Ok(rate)
}

async fn enqueue_jobs(queue: Queue, jobs: u64) -> Result<()> {
    let mut tx = queue.begin(Actor::system(tenant(0)), Request::default());
    if jobs == 1 {
        enqueue(&mut tx, Noop { n: 1 }).await?;
    } else {
        enqueue_many(&mut tx, (0..jobs).map(|n| Noop { n }), &Options::default()).await?;
    }
    Ok(tx.commit().await?)
}

async fn insert(pool: PgPool, jobs: u64) -> Result<()> {
    let mut tx = pool.begin().await?;
    let args = |n| serde_json::to_value(Noop { n });
    let timeout = i64::try_from(Noop::TIMEOUT.as_millis())?;
    if jobs == 1 {
        let insert = sqlx::query(PLAIN).bind(Uuid::now_v7()).bind(tenant(0).0).bind(Release::current().0);
        let insert =
            insert.bind(timeout).bind(Noop::ATTEMPTS).bind(Noop::KIND).bind(Noop::QUEUE).bind(args(1)?);
        insert.execute(&mut *tx).await?;
    } else {
        let ids: Vec<Uuid> = (0..jobs).map(|_| Uuid::now_v7()).collect();
        let args = (0..jobs).map(args).collect::<Result<Vec<_>, _>>()?;
        let insert = sqlx::query(PLAIN_BATCH).bind(&ids).bind(tenant(0).0).bind(Release::current().0);
        let insert = insert.bind(timeout).bind(Noop::ATTEMPTS).bind(Noop::KIND).bind(Noop::QUEUE).bind(&args);
        insert.execute(&mut *tx).await?;
    }
    Ok(tx.commit().await?)
}
