//! What the API makes of a read: beside a bare handler with the same query, and with a thousand
//! clients that wait for the same job.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use streamspace_common::Actor;
use streamspace_queue::{Job, Listen, control, enqueue, inspect::Scope, tx::Request};
use streamspace_testkit::{Percentiles, Postgres};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    cpu,
    http::Connection,
    kinds::Noop,
    load::{self, Site},
    people,
    process::{API_NAME, Server},
    rounds::Rounds,
    stage::{FINISHED, Stage, Turn, tenant},
    table::{Figure, Row, Target},
};

pub async fn measure(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let mut rows = reads(postgres, turn).await?;
    rows.extend(waits(postgres).await?);
    Ok(rows)
}

const JOBS: i64 = 10_000;
/// Of what the API serves at most.
const LOAD: f64 = 0.8;

async fn reads(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let mut stage = Stage::new(postgres).await?;
    stage.template(Noop { n: 1 }).await?;
    stage.fill(Noop::KIND, JOBS, 1, &FINISHED).await?;
    stage.settle().await?;
    let ids: Vec<Uuid> = sqlx::query_scalar("select id from jobs order by md5(id::text)")
        .fetch_all(&mut stage.connect().await?)
        .await?;
    let paths: Arc<[String]> = ids.iter().map(|id| format!("/api/v1/jobs/{id}")).collect();
    let key: Arc<str> = people::operators(&stage, 1).await?.swap_remove(0).into();
    let (api, bare) = (Server::api(&stage).await?, Server::bare(&stage).await?);
    let (api_site, bare_site) =
        (Site::new(&stage, &api, &paths, &key), Site::new(&stage, &bare, &paths, &key));
    ensure!(api_site.answer(0).await? == bare_site.answer(0).await?, "the two answer differently");

    let sites = [("bare", &bare_site), ("api", &api_site)];
    let mut rounds = Rounds::new();
    // The slowest of a hundred needs many hundreds.
    let longer = Turn { window: turn.window * 2, ..turn };
    for _ in 0..turn.rounds {
        // Of what was reached in this very round: a machine with other work has less to give.
        let mut rate = 0.0;
        for (name, site) in sites {
            let most = load::most(site, turn).await?;
            rounds.pace(name, most);
            rate = most.rate * LOAD;
            let times = load::steady(site, rate, longer).await?;
            rounds.record(&format!("{name} p50"), times.p(50.0).as_secs_f64());
            rounds.record(&format!("{name} p99"), times.p(99.0).as_secs_f64());
        }
        rounds.record("rate", rate);
        let times = load::steady(&bare_site, rate, longer).await?;
        rounds.record("idler p99", times.p(99.0).as_secs_f64());
    }
    api.process.kill9().await;
    bare.process.kill9().await;

    let time = |name: &str| Figure::Time(Duration::from_secs_f64(rounds.median(name)));
    let cost = |name: &str| {
        let [own, server] = ["own", "server"].map(|of| rounds.median(&format!("{name} {of}")));
        format!("{own:.0} + {server:.0}")
    };
    Ok(vec![
        Row::new("GET /jobs/{id}: highest rate", Figure::PerSecond(rounds.median("api")))
            .against(Figure::PerSecond(rounds.median("bare")))
            .note(format!("µs of processor, itself + database: {}; bare: {}", cost("api"), cost("bare"))),
        Row::new("GET /jobs/{id} at 80 % load: p50", time("api p50"))
            .against(time("bare p50"))
            .note("reference: a bare handler with the same query, at 80 % of what it reaches itself"),
        Row::new("GET /jobs/{id} at 80 % load: p99", time("api p99"))
            .against(time("bare p99"))
            .target(Target::AtMost(1.3))
            .note("the same"),
        Row::new("GET /jobs/{id} at that rate: p99", time("api p99")).against(time("idler p99")).note(
            format!(
                "{:.0}/s; reference: the bare handler at the same rate, less of what it reaches",
                rounds.median("rate")
            ),
        ),
    ])
}

const PEOPLE: usize = 50;
/// As many as one person may have.
const CLIENTS_EACH: usize = 20;
/// Longer than `?wait=60s`.
const AN_ANSWER: Duration = Duration::from_secs(75);

async fn waits(postgres: &Postgres) -> Result<Vec<Row>> {
    let clients = PEOPLE * CLIENTS_EACH;
    may_open_files(clients)?;
    let stage = Stage::new(postgres).await?;
    let keys = people::operators(&stage, PEOPLE).await?;
    let queue = stage.queue("bench canceller", Listen::default())?;
    // No worker runs, so it does not end.
    let mut tx = queue.begin(Actor::system(tenant(0)), Request::default());
    let job = enqueue(&mut tx, Noop { n: 1 }).await?.id;
    tx.commit().await?;

    let api = Server::api(&stage).await?;
    let mut prober = Connection::open(api.address).await?;
    let path = format!("/api/v1/jobs/{job}");
    for key in &keys {
        let (status, _) = prober.get(&path, key).await?;
        ensure!(status == StatusCode::OK, "the API answers {status}");
    }
    let memory_before = cpu::memory_of(api.pid())?;
    let (connections_before, _) = connections(&stage).await?;

    let mut waiting = JoinSet::new();
    for key in keys.iter().flat_map(|key| std::iter::repeat_n(key, CLIENTS_EACH)) {
        let mut connection = Connection::open(api.address).await?;
        let (path, key) = (format!("{path}?wait=60s"), key.clone());
        waiting.spawn(async move {
            let (status, body) = connection.get_within(&path, &key, AN_ANSWER).await?;
            ensure!(status == StatusCode::OK, "a client that waits was answered {status}");
            anyhow::Ok((Instant::now(), body))
        });
    }
    let (mut held, mut busy) = (0, 0);
    for sample in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = connections(&stage).await?;
        held = now.0.max(held);
        // Until then the last of them may still be arriving.
        busy = if sample < 20 { 0 } else { now.1.max(busy) };
    }
    for key in &keys {
        // Who waits on all their streams is refused one more.
        let (status, _) = prober.get(&format!("{path}?wait=1ms"), key).await?;
        ensure!(status == StatusCode::TOO_MANY_REQUESTS, "somebody's clients do not all wait");
    }
    if let Some(answered) = waiting.try_join_next() {
        answered??;
        anyhow::bail!("a client was answered before its job had ended");
    }
    let memory = cpu::memory_of(api.pid())?;

    let ended = Instant::now();
    let mut tx = queue.begin(Actor::system(tenant(0)), Request::default());
    control::cancel(&mut tx, Scope::Tenant(tenant(0)), job).await?;
    tx.commit().await?;
    let mut times = Vec::new();
    while let Some(answered) = waiting.join_next().await {
        let (at, body) = answered??;
        let told: serde_json::Value = serde_json::from_slice(&body)?;
        ensure!(told["state"] == "cancelled", "a client was told {}", told["state"]);
        times.push(at - ended);
    }
    ensure!(times.len() == clients, "{} of {clients} clients were answered", times.len());
    queue.close().await;
    api.process.kill9().await;

    let times = Percentiles::of(times);
    let each = memory.saturating_sub(memory_before) / 1024 / clients as u64;
    Ok(vec![
        Row::new(format!("{clients} clients at ?wait=60s: the API's memory"), Figure::Bytes(memory))
            .against(Figure::Bytes(memory_before))
            .note(format!("{each} KiB a client, its connection included; reference: before they came")),
        Row::new(format!("{clients} clients at ?wait=60s: database connections"), count(held))
            .against(count(connections_before))
            .note(format!(
                "most that were open at a time; {busy} of them busy while they wait; reference: before"
            )),
        Row::new(format!("{clients} clients at ?wait=60s: the last is answered"), Figure::Time(times.max()))
            .note(format!("after the job's end; p50 {:.1?}", times.p(50.0))),
    ])
}

/// How many the API has, and how many of them do something.
async fn connections(stage: &Stage) -> Result<(i64, i64)> {
    Ok(sqlx::query_as(
        "select count(*), count(*) filter (where state <> 'idle') from pg_stat_activity
         where application_name = $1 and datname = current_database()",
    )
    .bind(API_NAME)
    .fetch_one(&mut stage.connect().await?)
    .await?)
}

fn count(connections: i64) -> Figure {
    Figure::Count(connections as f64, "open")
}

/// Each client is a file here and one in the API.
fn may_open_files(clients: usize) -> Result<()> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("a limit of files")?;
    let most = line.split_whitespace().nth(3).context("a limit")?;
    let enough = most.parse().map_or(most == "unlimited", |most: usize| most >= clients + 200);
    ensure!(enough, "{clients} clients need more than {most} open files: `ulimit -n` raises the limit");
    Ok(())
}
