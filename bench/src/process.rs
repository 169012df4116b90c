//! Processes of their own, whose memory and processor time can be told apart: this program, started
//! again under a hidden name.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use http::StatusCode;
use streamspace_admin::Checks;
use streamspace_api::{Api, Parts, view};
use streamspace_common::{
    Config, JobId, MasterKeys,
    config::{JobsConfig, LimitsConfig},
};
use streamspace_domain::Ports;
use streamspace_queue::{
    Db, DbOptions, Listen, Queue, QueueOptions, Release,
    inspect::{self, Scope},
};
use streamspace_testkit::{Process, Program};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::Everyone,
    kinds::{Tally, registry},
    stage::{Stage, tenant},
};

const WORKER: &str = "as-worker";
const API: &str = "as-api";
const BARE: &str = "as-bare-server";

/// What the API is called in `pg_stat_activity`.
pub const API_NAME: &str = "bench api";

/// Plays the role that the words name, until it is killed; `false` when they name none.
pub async fn play(words: &[String]) -> Result<bool> {
    match words {
        [role, url, queues] if role == WORKER => work(url, queues).await?,
        [role, url] if role == API => serve_api(url).await?,
        [role, url] if role == BARE => serve_bare(url).await?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn start(words: &[&str]) -> Result<Process> {
    Program::new(std::env::current_exe()?).args(words).start()
}

const A_START: Duration = Duration::from_secs(10);

/// A worker of these queues, otherwise as the product has it.
pub async fn worker(stage: &Stage, queues: &[&str]) -> Result<Process> {
    let process = start(&[WORKER, stage.url(), &queues.join(",")])?;
    process.line("ready", A_START).await;
    Ok(process)
}

/// Something that answers HTTP.
pub struct Server {
    pub process: Process,
    pub address: SocketAddr,
}

impl Server {
    /// The product's API.
    pub async fn api(stage: &Stage) -> Result<Self> {
        Self::start(&[API, stage.url()]).await
    }

    /// One handler that makes the same query for a job, and nothing around it.
    pub async fn bare(stage: &Stage) -> Result<Self> {
        Self::start(&[BARE, stage.url()]).await
    }

    async fn start(words: &[&str]) -> Result<Self> {
        let process = start(words)?;
        let line = process.line("ready on ", A_START).await;
        let address = line.rsplit(' ').next().context("an address")?.parse()?;
        Ok(Self { process, address })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid().unsigned_abs()
    }
}

/// As many connections as a process of the product has.
fn connect(url: &str, application: &str) -> Result<Db> {
    Ok(Db::new(&DbOptions {
        url: url.to_owned(),
        direct_url: None,
        max_connections: Config::default().database.max_connections,
        application: application.to_owned(),
    })?)
}

fn queue(url: &str, application: &str, listen: Listen) -> Result<Queue> {
    let options = QueueOptions { release: Release::current(), listen, redis_url: None };
    Ok(Queue::start(connect(url, application)?, options)?)
}

async fn work(url: &str, queues: &str) -> Result<()> {
    let queue = queue(url, "bench worker", Listen { engine: true, live: false })?;
    let queues = Some(queues.split(',').map(str::to_owned).collect());
    let jobs = JobsConfig { queues, ..JobsConfig::default() };
    crate::say("ready");
    let registry = registry(&Arc::new(Tally::default()));
    streamspace_worker::run(queue, registry, Arc::new(Everyone), &jobs, false, CancellationToken::new())
        .await?;
    Ok(())
}

/// A loopback port whose number is told.
async fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::say(&format!("ready on {}", listener.local_addr()?));
    Ok(listener)
}

async fn serve_api(url: &str) -> Result<()> {
    let queue = queue(url, API_NAME, Listen { engine: false, live: true })?;
    let limits =
        LimitsConfig { user_per_minute: u32::MAX, address_per_minute: u32::MAX, ..Default::default() };
    let config = Config { limits, ..Config::default() };
    let ports = Ports::default();
    let parts = Parts {
        queue,
        registry: streamspace_domain::registry(&ports),
        schedules: streamspace_domain::schedules(&ports),
        checks: Checks::new(),
        master: MasterKeys::generate(),
        identity_providers: Arc::new(streamspace_http::HttpProviders::of(&config)),
        stop: CancellationToken::new(),
    };
    let api = Api::new(&config, parts);
    Ok(streamspace_api::serve(listen().await?, api).await?)
}

async fn serve_bare(url: &str) -> Result<()> {
    let router = Router::new().route("/api/v1/jobs/{id}", get(job)).with_state(connect(url, "bench bare")?);
    Ok(axum::serve(listen().await?, router).await?)
}

async fn job(State(db): State<Db>, Path(id): Path<JobId>) -> Result<Json<view::Job>, StatusCode> {
    let row = async { inspect::get(&mut *db.pool().acquire().await?, Scope::Tenant(tenant(0)), id).await };
    let row = row.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(row.ok_or(StatusCode::NOT_FOUND)?.into()))
}
