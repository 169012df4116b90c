//! The worker role: runs the job kinds that it is given until it is told to stop.

use std::sync::Arc;

use streamspace_common::config::JobsConfig;
use streamspace_queue::{Ended, Queue, Registry, Rights, WorkerOptions, run_worker};
use tokio_util::sync::CancellationToken;

/// Runs a worker. Job bodies get a runtime of their own, so that one that blocks its thread stops
/// neither the lease nor the acknowledgements. When it `stays`, an operator's drain does not end it.
///
/// # Errors
/// When the threads of that runtime can't be started.
pub async fn run(
    queue: Queue,
    registry: Registry,
    rights: Arc<dyn Rights>,
    jobs: &JobsConfig,
    stays: bool,
    stop: CancellationToken,
) -> std::io::Result<Ended> {
    let handlers = tokio::runtime::Builder::new_multi_thread().thread_name("job").enable_all().build()?;
    let options = WorkerOptions { stays, ..options(jobs) };
    let ended = run_worker(queue, registry, rights, options, handlers.handle().clone(), stop).await;
    // Without waiting: an abandoned handler may hold its thread for ever.
    handlers.shutdown_background();
    Ok(ended)
}

fn options(jobs: &JobsConfig) -> WorkerOptions {
    WorkerOptions {
        concurrency: jobs.concurrency,
        queues: jobs.queues.clone(),
        lease: jobs.lease,
        heartbeat: jobs.heartbeat,
        shutdown_timeout: jobs.shutdown_timeout,
        fair_share: jobs.fair_share,
        unknown_after: jobs.unknown_after,
        stays: false,
        host: host_name(),
    }
}

/// For operators to read. Nothing is decided by it.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}
