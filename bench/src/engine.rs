//! The engine under test: a worker in this process, every feature on, logging and counting as the
//! real one does.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures::future::BoxFuture;
use sqlx::PgConnection;
use streamspace_common::{Actor, TenantId};
use streamspace_queue::{Behind, Ended, Listen, MayAct, Queue, Rights, WorkerOptions, run_worker};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    cpu::{Meter, Pace},
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

/// Nobody lost their rights.
pub struct Everyone;

impl Rights for Everyone {
    fn actor<'a>(
        &'a self,
        _: &'a mut PgConnection,
        tenant: TenantId,
        _: Behind,
    ) -> BoxFuture<'a, sqlx::Result<MayAct>> {
        Box::pin(async move { Ok(MayAct::As(Actor::system(tenant))) })
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

    /// Ends it without waiting for its jobs, which run until they are told to stop.
    pub async fn stop_now(self) {
        self.running.abort();
        self.queue.close().await;
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
pub async fn rate(stage: &Stage, queue: &str, concurrency: usize, turn: Turn) -> Result<Pace> {
    let worker = Worker::start(stage, queue, concurrency)?;
    worker.has_done(1).await?;
    tokio::time::sleep(turn.warm_up).await;
    let (from, before, meter) = (Instant::now(), worker.tally.done(), Meter::start(stage.postmaster)?);
    tokio::time::sleep(turn.window).await;
    let jobs = worker.tally.done() - before;
    let rate = jobs as f64 / from.elapsed().as_secs_f64();
    let (own, server) = meter.used()?.per_job(jobs);
    worker.stop().await?;
    Ok(Pace { rate, own, server })
}
