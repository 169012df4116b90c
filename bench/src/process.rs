//! A worker as a process of its own: this program, started again under a hidden name.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use streamspace_common::config::JobsConfig;
use streamspace_queue::{Db, DbOptions, Listen, Queue, QueueOptions, Release};
use streamspace_testkit::{Process, Program};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::Everyone,
    kinds::{Tally, registry},
    stage::Stage,
};

pub const WORKER: &str = "as-worker";

pub fn start_worker(stage: &Stage, queues: &[&str]) -> Result<Process> {
    Program::new(std::env::current_exe()?).args([WORKER, stage.url(), &queues.join(",")]).start()
}

/// What such a process does, until it is killed.
pub async fn work(url: &str, queues: &str) -> Result<()> {
    let db = Db::new(&DbOptions {
        url: url.to_owned(),
        direct_url: None,
        max_connections: 20,
        application: "bench worker".to_owned(),
    })?;
    let listen = Listen { engine: true, live: false };
    let queue = Queue::start(db, QueueOptions { release: Release::current(), listen, redis_url: None })?;
    let queues = Some(queues.split(',').map(str::to_owned).collect());
    let jobs = JobsConfig { queues, heartbeat: Duration::from_secs(3), ..JobsConfig::default() };
    crate::say("ready");
    let registry = registry(&Arc::new(Tally::default()));
    streamspace_worker::run(queue, registry, Arc::new(Everyone), &jobs, CancellationToken::new()).await?;
    Ok(())
}
