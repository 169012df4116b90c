//! The engine under test: a worker in this process, every feature on, logging and counting as the
//! real one does.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures::future::BoxFuture;
use sqlx::PgConnection;
use streamspace_common::{Actor, TenantId, UserId};
use streamspace_queue::{Ended, Listen, Queue, Rights, WorkerOptions, run_worker};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    kinds::{Tally, registry},
    stage::{Stage, Turn},
};

/// Handlers have a runtime of their own, as in the worker.
static HANDLERS: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("handler")
        .enable_all()
        .build()
        .expect("threads can be started")
});

struct Everyone;

impl Rights for Everyone {
    fn actor<'a>(
        &'a self,
        _: &'a mut PgConnection,
        tenant: TenantId,
        _: UserId,
    ) -> BoxFuture<'a, sqlx::Result<Option<Actor>>> {
        Box::pin(async move { Ok(Some(Actor::system(tenant))) })
    }
}

pub struct Worker {
    pub tally: Arc<Tally>,
    queue: Queue,
    stop: CancellationToken,
    running: JoinHandle<Ended>,
}

impl Worker {
    /// A worker of one queue.
    pub fn start(stage: &Stage, queue: &str, concurrency: usize) -> Result<Self> {
        let tally = Arc::new(Tally::default());
        let handle = stage.queue("bench worker", Listen { engine: true, live: false })?;
        let stop = CancellationToken::new();
        let options =
            WorkerOptions { concurrency, queues: Some(vec![queue.to_owned()]), ..WorkerOptions::default() };
        let running = tokio::spawn(run_worker(
            handle.clone(),
            registry(&tally),
            Arc::new(Everyone),
            options,
            HANDLERS.handle().clone(),
            stop.clone(),
        ));
        Ok(Self { tally, queue: handle, stop, running })
    }

    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        let ended = self.running.await?;
        self.queue.close().await;
        ensure!(ended == Ended::Stopped, "the worker gave up");
        Ok(())
    }

    /// Waits until so many jobs were done.
    pub async fn has_done(&self, jobs: u64) -> Result<()> {
        let began = Instant::now();
        while self.tally.done() < jobs {
            ensure!(began.elapsed() < Duration::from_secs(30), "the worker is stuck");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

/// Jobs per second of one worker.
pub async fn rate(stage: &Stage, queue: &str, concurrency: usize, turn: Turn) -> Result<f64> {
    let worker = Worker::start(stage, queue, concurrency)?;
    worker.has_done(1).await?;
    tokio::time::sleep(turn.warm_up).await;
    let (from, before) = (Instant::now(), worker.tally.done());
    tokio::time::sleep(turn.window).await;
    let rate = (worker.tally.done() - before) as f64 / from.elapsed().as_secs_f64();
    worker.stop().await?;
    Ok(rate)
}
