//! A process of the fleet that tests start, freeze and kill: the engine with the kinds of tests.
//!
//! `fleet worker | scheduler | api | migrate`, configured by `FLEET_*` variables. It says `fleet ready` when it
//! works, and its metrics when it gets SIGUSR1.

#![expect(clippy::print_stdout, reason = "its output is how tests follow it")]

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::BoxFuture;
use sqlx::PgConnection;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use streamspace_api::{Api, Parts};
use streamspace_common::config::LogConfig;
use streamspace_common::{Actor, Config, MasterKeys, TenantId, telemetry};
use streamspace_queue::schedule::Schedules;
use streamspace_queue::{
    Behind, Db, DbOptions, Ended, Listen, MayAct, Queue, QueueOptions, Registry, Release, Rights,
    WorkerOptions, run_worker, schema,
};
use streamspace_tests::stage::{Brief, Count, EvolvedV1, EvolvedV2, Novel, Play, Stage};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> Result<()> {
    telemetry::start_log(&LogConfig::default());
    let metrics = telemetry::metrics();
    // As the real worker does it: bodies on a runtime of their own, so that one which blocks its
    // thread stops neither beat nor acknowledgements. The same number of threads, whatever the machine has.
    let handlers = runtime(number("FLEET_HANDLER_THREADS")?.unwrap_or(2))?;
    let ended = runtime(2)?.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(obey_signals(stop.clone(), metrics)?);
        match std::env::args().nth(1).as_deref() {
            Some("worker") => work(handlers.handle().clone(), stop).await,
            Some("scheduler") => schedule(stop).await.map(|()| Ended::Stopped),
            Some("api") => serve(stop).await.map(|()| Ended::Stopped),
            Some("migrate") => migrate().await.map(|()| Ended::Stopped),
            other => bail!("fleet worker | scheduler | api | migrate, not {other:?}"),
        }
    })?;
    println!("fleet ended: {ended:?}");
    // Blocked threads would hold up a clean end for ever.
    handlers.shutdown_background();
    std::process::exit(if ended == Ended::Stopped { 0 } else { 3 });
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?)
}

async fn work(handlers: tokio::runtime::Handle, stop: CancellationToken) -> Result<Ended> {
    let release = Release(number("STREAMSPACE_TEST_RELEASE")?.unwrap_or(1));
    let queue = start_queue(release, Listen { engine: true, live: false })?;
    let defaults = WorkerOptions::default();
    let lease = milliseconds("FLEET_LEASE_MS")?.unwrap_or(defaults.lease);
    let options = WorkerOptions {
        concurrency: number("FLEET_CONCURRENCY")?.unwrap_or(10),
        lease,
        heartbeat: milliseconds("FLEET_HEARTBEAT_MS")?.unwrap_or(lease / 3),
        shutdown_timeout: milliseconds("FLEET_PATIENCE_MS")?.unwrap_or(Duration::from_secs(5)),
        unknown_after: milliseconds("FLEET_UNKNOWN_AFTER_MS")?.unwrap_or(defaults.unknown_after),
        ..defaults
    };
    let registry = kinds(release, Arc::new(stage().await?));
    println!("fleet ready");
    let ended = run_worker(queue.clone(), registry, Arc::new(Everyone), options, handlers, stop).await;
    queue.close().await;
    Ok(ended)
}

async fn schedule(stop: CancellationToken) -> Result<()> {
    let release = Release(1);
    let queue = start_queue(release, Listen { engine: true, live: false })?;
    let schedules = Schedules::new(kinds(release, Arc::new(stage().await?)), []);
    println!("fleet ready");
    streamspace_scheduler::run(queue.clone(), schedules, stop).await;
    queue.close().await;
    Ok(())
}

async fn serve(stop: CancellationToken) -> Result<()> {
    let queue = start_queue(Release(1), Listen { live: true, ..Listen::default() })?;
    let registry = kinds(Release(1), Arc::new(stage().await?));
    let schedules = Schedules::new(registry.clone(), []);
    let checks = streamspace_admin::Checks::new();
    let keys = variable("FLEET_MASTER_KEYS").context("FLEET_MASTER_KEYS is not set")?;
    let master = MasterKeys::load_or_generate(Path::new(&keys))?;
    let config = Config::default();
    let identity_providers = Arc::new(streamspace_http::HttpProviders::of(&config));
    let parts = Parts { queue: queue.clone(), registry, schedules, checks, master, identity_providers, stop };
    let api = Api::new(&config, parts);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("fleet ready on {}", listener.local_addr()?.port());
    streamspace_api::serve(listener, api).await?;
    queue.close().await;
    Ok(())
}

/// The product's migrations, or those of a directory.
async fn migrate() -> Result<()> {
    let url: PgConnectOptions =
        variable("FLEET_DATABASE_URL").context("FLEET_DATABASE_URL is not set")?.parse()?;
    let own = match variable("FLEET_MIGRATIONS") {
        Some(dir) => Some(Migrator::new(Path::new(&dir)).await?),
        None => None,
    };
    let migrator = own.as_ref().unwrap_or(&schema::MIGRATOR);
    let options = schema::Options { migrator, ..schema::Options::default() };
    schema::migrate(&url, options, |progress| println!("{progress}")).await?;
    Ok(())
}

fn start_queue(release: Release, listen: Listen) -> Result<Queue> {
    let db = Db::new(&DbOptions {
        url: variable("FLEET_DATABASE_URL").context("FLEET_DATABASE_URL is not set")?,
        direct_url: variable("FLEET_DIRECT_URL"),
        max_connections: 20,
        application: "fleet".into(),
    })?;
    Ok(Queue::start(db, QueueOptions { release, listen, redis_url: variable("FLEET_REDIS_URL") })?)
}

async fn stage() -> Result<Stage> {
    let url = variable("FLEET_STAGE_URL").context("FLEET_STAGE_URL is not set")?;
    Ok(Stage { pool: PgPoolOptions::new().max_connections(8).connect_lazy(&url)? })
}

/// Release 2 brought a new kind, and a new version of an old one.
fn kinds(release: Release, stage: Arc<Stage>) -> Registry {
    let both = Registry::new()
        .register::<Play>(stage.clone())
        .register::<Brief>(stage.clone())
        .register_batch::<Count>(stage.clone());
    if release >= Release(2) {
        both.register::<Novel>(stage.clone()).register::<EvolvedV2>(stage)
    } else {
        both.register::<EvolvedV1>(stage)
    }
}

/// Nobody here has lost their rights.
struct Everyone;

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

fn obey_signals(stop: CancellationToken, metrics: telemetry::Metrics) -> Result<impl Future<Output = ()>> {
    let (mut term, mut tell) = (signal(SignalKind::terminate())?, signal(SignalKind::user_defined1())?);
    Ok(async move {
        loop {
            tokio::select! {
                _ = term.recv() => stop.cancel(),
                _ = tell.recv() => println!("metrics begin\n{}\nmetrics end", metrics.render()),
            }
        }
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number<N: FromStr>(name: &str) -> Result<Option<N>>
where
    N::Err: std::error::Error + Send + Sync + 'static,
{
    variable(name).map(|value| value.parse().with_context(|| format!("{name} is not a number"))).transpose()
}

fn milliseconds(name: &str) -> Result<Option<Duration>> {
    Ok(number(name)?.map(Duration::from_millis))
}
