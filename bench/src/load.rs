//! Load on a server: as much as it takes, or at a rate that does not wait for it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use streamspace_testkit::Percentiles;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    cpu::{Meter, Pace},
    http::{Ask, Connection, PATIENCE},
    process::Server,
    stage::{Stage, Turn},
};

/// Clients of which each asks again as soon as it has its answer.
const CLIENTS: usize = 32;
/// Connections over which requests are sent at a constant rate: more than are ever busy at once, as
/// long as the server keeps up.
const LINES: usize = 64;

/// Whom to ask, for what, and as whom.
#[derive(Clone)]
pub struct Site {
    address: SocketAddr,
    pid: u32,
    postmaster: u32,
    paths: Arc<[String]>,
    method: Method,
    header: Option<(&'static str, Arc<str>)>,
    body: Bytes,
    expected: StatusCode,
}

impl Site {
    pub fn new(stage: &Stage, server: &Server, paths: &Arc<[String]>, key: &Arc<str>) -> Self {
        Self {
            address: server.address,
            pid: server.pid(),
            postmaster: stage.postmaster,
            paths: paths.clone(),
            method: Method::GET,
            header: Some(("x-api-key", key.clone())),
            body: Bytes::new(),
            expected: StatusCode::OK,
        }
    }

    /// The same with another header that says who asks, or without any.
    pub fn as_who(self, header: Option<(&'static str, Arc<str>)>) -> Self {
        Self { header, ..self }
    }

    pub fn sending(self, method: Method, body: &'static str) -> Self {
        Self { method, body: Bytes::from_static(body.as_bytes()), ..self }
    }

    pub fn expecting(self, expected: StatusCode) -> Self {
        Self { expected, ..self }
    }

    /// What it answers to its nth path.
    pub async fn answer(&self, n: usize) -> Result<Bytes> {
        self.ask(&mut Connection::open(self.address).await?, n).await
    }

    async fn ask(&self, connection: &mut Connection, n: usize) -> Result<Bytes> {
        let ask = Ask {
            method: self.method.clone(),
            path: &self.paths[n % self.paths.len()],
            header: self.header.as_ref().map(|(name, value)| (*name, &**value)),
            body: self.body.clone(),
        };
        let (status, body) = connection.send(ask, PATIENCE).await?;
        ensure!(status == self.expected, "answered {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}

/// What a server reaches at most: requests per second, and what each costs it and the database.
pub async fn most(site: &Site, turn: Turn) -> Result<Pace> {
    let from = Instant::now() + turn.warm_up;
    let until = from + turn.window;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let site = site.clone();
        clients.spawn(async move {
            let mut connection = Connection::open(site.address).await?;
            let mut answered = 0_u64;
            for n in client * 31.. {
                site.ask(&mut connection, n).await?;
                let now = Instant::now();
                if now >= until {
                    break;
                }
                answered += u64::from(now >= from);
            }
            anyhow::Ok(answered)
        });
    }
    tokio::time::sleep_until(from.into()).await;
    let meter = Meter::of(&site.pid.to_string(), site.postmaster)?;
    tokio::time::sleep_until(until.into()).await;
    let used = meter.used()?;
    let mut answered = 0;
    while let Some(client) = clients.join_next().await {
        answered += client??;
    }
    let (own, server) = used.per_job(answered);
    Ok(Pace { rate: answered as f64 / turn.window.as_secs_f64(), own, server })
}

/// How long requests take that come at a constant rate, each counted from when it was due: one that
/// had to wait for those before it has waited.
pub async fn steady(site: &Site, rate: f64, turn: Turn) -> Result<Percentiles> {
    let every = Duration::from_secs_f64(1.0 / rate);
    let unmeasured = (turn.warm_up.as_secs_f64() * rate) as u32;
    let all = unmeasured + (turn.window.as_secs_f64() * rate) as u32;
    let (due, next) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
    let mut connections = Vec::new();
    for _ in 0..LINES {
        connections.push(Connection::open(site.address).await?);
    }
    let start = Instant::now() + Duration::from_millis(5);
    let mut lines = JoinSet::new();
    for mut connection in connections {
        let (site, due, next) = (site.clone(), due.clone(), next.clone());
        lines.spawn(async move {
            let mut times = Vec::new();
            loop {
                due.acquire().await?.forget();
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= all {
                    return anyhow::Ok(times);
                }
                site.ask(&mut connection, n as usize).await?;
                if n >= unmeasured {
                    times.push((start + every * n).elapsed());
                }
            }
        });
    }
    // On a thread: the runtime's timers are as coarse as the answers are quick.
    let pacer = tokio::task::spawn_blocking(move || {
        for n in 0..all {
            std::thread::sleep((start + every * n).saturating_duration_since(Instant::now()));
            due.add_permits(1);
        }
        due.add_permits(LINES);
    });
    let mut times = Vec::new();
    while let Some(line) = lines.join_next().await {
        times.extend(line??);
    }
    pacer.await?;
    Ok(Percentiles::of(times))
}
