//! What it costs to know who asks, to hash passwords beside other work, and to write down who changed
//! what.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use streamspace_queue::Job;
use streamspace_testkit::{Percentiles, Postgres};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    http::{Ask, Connection, PATIENCE},
    kinds::Noop,
    load::{self, Site},
    people::{self, PASSWORD},
    process::Server,
    rounds::Rounds,
    stage::{FINISHED, Stage, Turn},
    table::{Figure, Row, Target},
};

pub async fn measure(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let mut rows = callers(postgres, turn).await?;
    rows.extend(sign_ins(postgres, turn).await?);
    rows.push(audit(postgres, turn).await?);
    Ok(rows)
}

const LOGIN: &str = "/api/v1/auth/login";

async fn sign_in(connection: &mut Connection, person: usize) -> Result<Value> {
    let body = json!({ "email": format!("{person}@example.org"), "password": PASSWORD, "tenant": "bench" });
    let ask = Ask { method: Method::POST, path: LOGIN, header: None, body: Bytes::from(body.to_string()) };
    // Whoever waits for a place among those who are hashed for waits some seconds.
    let (status, body) = connection.send(ask, PATIENCE * 3).await?;
    ensure!(status == StatusCode::OK, "a sign-in was answered {status}: {}", String::from_utf8_lossy(&body));
    Ok(serde_json::from_slice(&body)?)
}

fn bearer(signed_in: &Value) -> Result<Arc<str>> {
    let token = signed_in["accessToken"].as_str().context("an access token")?;
    Ok(format!("Bearer {token}").into())
}

const PEOPLE: usize = 200;

/// An address where nothing is: the same is answered to strangers and to who is known, so what is
/// between them is the knowing.
async fn callers(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let stage = Stage::new(postgres).await?;
    let keys = people::operators(&stage, PEOPLE).await?;
    people::passwords(&stage).await?;
    let api = Server::api(&stage).await?;
    let mut connection = Connection::open(api.address).await?;
    let token = bearer(&sign_in(&mut connection, 0).await?)?;

    let paths: Arc<[String]> = Arc::new(["/api/v1/nowhere".to_owned()]);
    let key: Arc<str> = keys[0].clone().into();
    let site = Site::new(&stage, &api, &paths, &key).expecting(StatusCode::NOT_FOUND);
    let sites = [
        ("nobody", site.clone().asked_by(None)),
        ("key", site.clone()),
        ("token", site.asked_by(Some(("authorization", token)))),
    ];
    // Some microseconds are between them: many short turns, and none is always the first.
    let short = Turn { warm_up: turn.warm_up / 3, window: turn.window / 3, ..turn };
    let mut rounds = Rounds::new();
    for round in 0..turn.rounds * 3 {
        for n in 0..sites.len() {
            let (name, site) = &sites[(round + n) % sites.len()];
            rounds.pace(name, load::most(site, short).await?);
        }
    }

    // The first request of a key, and its second.
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for key in &keys[1..] {
        for times in [&mut cold, &mut warm] {
            let since = Instant::now();
            let (status, _) = connection.get("/api/v1/nowhere", key).await?;
            times.push(since.elapsed());
            ensure!(status == StatusCode::NOT_FOUND, "answered {status}");
        }
    }
    let mut reader = stage.connect().await?;
    let mut trip = Vec::new();
    for _ in 0..PEOPLE {
        let since = Instant::now();
        sqlx::query("select role from users limit 1").fetch_all(&mut reader).await?;
        trip.push(since.elapsed());
    }
    api.process.kill9().await;

    let p50 = |times: Vec<Duration>| Percentiles::of(times).p(50.0);
    let (cold, warm, trip) = (p50(cold), p50(warm), p50(trip));
    let rate = |name: &str| Figure::PerSecond(rounds.median(name));
    let own = |name: &str| rounds.median(&format!("{name} own"));
    let row = |who: &str, name: &str| {
        Row::new(format!("requests of {who}"), rate(name))
            .against(rate("nobody"))
            .target(Target::AtLeast(0.85))
            .note(format!(
                "nothing else is done: {:.1} µs of processor time; reference: the same of nobody, {:.1} µs",
                own(name),
                own("nobody")
            ))
    };
    Ok(vec![
        row("a key", "key"),
        row("an access token", "token"),
        Row::new("what the first request of a key takes longer", Figure::Time(cold.saturating_sub(warm)))
            .against(Figure::Time(trip))
            .note("reference: one read of the database, by a connection of its own"),
    ])
}

const JOBS: i64 = 10_000;
const SIGN_INS: usize = 100;
/// Of what the API serves at most, while nobody signs in.
const LOAD: f64 = 0.3;

async fn sign_in_again(address: SocketAddr, person: usize) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    loop {
        sign_in(&mut connection, person).await?;
    }
}

/// A hundred people who sign in again and again, beside others who read.
async fn sign_ins(postgres: &Postgres, turn: Turn) -> Result<Vec<Row>> {
    let mut stage = Stage::new(postgres).await?;
    stage.template(Noop { n: 1 }).await?;
    stage.fill(Noop::KIND, JOBS, 1, &FINISHED).await?;
    stage.settle().await?;
    let ids: Vec<Uuid> = sqlx::query_scalar("select id from jobs order by md5(id::text)")
        .fetch_all(&mut stage.connect().await?)
        .await?;
    let paths: Arc<[String]> = ids.iter().map(|id| format!("/api/v1/jobs/{id}")).collect();
    let key: Arc<str> = people::operators(&stage, SIGN_INS).await?.swap_remove(0).into();
    people::passwords(&stage).await?;
    let api = Server::api(&stage).await?;
    let site = Site::new(&stage, &api, &paths, &key);
    let longer = Turn { window: turn.window * 2, ..turn };
    let rate = load::most(&site, turn).await?.rate * LOAD;

    let mut rounds = Rounds::new();
    for _ in 0..turn.rounds {
        let times = load::steady(&site, rate, longer).await?;
        rounds.record("quiet", times.p(99.0).as_secs_f64());
        let mut crowd = JoinSet::new();
        for person in 0..SIGN_INS {
            crowd.spawn(sign_in_again(api.address, person));
        }
        let times = load::steady(&site, rate, longer).await?;
        rounds.record("crowd", times.p(99.0).as_secs_f64());
        if let Some(ended) = crowd.try_join_next() {
            ended??;
        }
        crowd.shutdown().await;
        let signed_in = stage.count("select count(*) from sign_ins").await?;
        stage.execute("delete from sign_ins").await?;
        rounds.record("signed in", signed_in as f64 / (longer.window + longer.warm_up).as_secs_f64());
    }
    api.process.kill9().await;
    let time = |name: &str| Figure::Time(Duration::from_secs_f64(rounds.median(name)));
    Ok(vec![
        Row::new(format!("GET /jobs/{{id}} beside {SIGN_INS} who sign in: p99"), time("crowd"))
            .against(time("quiet"))
            .target(Target::AtMost(2.0))
            .note(format!(
                "at {rate:.0}/s, {:.0} % of what it reaches; {:.0} sign-ins a second; reference: nobody signs in",
                LOAD * 100.0,
                rounds.median("signed in")
            )),
    ])
}

/// A change with its row in the audit, beside the same whose row a trigger throws away.
async fn audit(postgres: &Postgres, turn: Turn) -> Result<Row> {
    let (on, off) = (Stage::new(postgres).await?, Stage::new(postgres).await?);
    off.execute(
        "create function unwritten() returns trigger language plpgsql as $$ begin return null; end $$",
    )
    .await?;
    off.execute("create trigger unwritten before insert on audit for each row execute function unwritten()")
        .await?;
    let mut rounds = Rounds::new();
    let mut servers = Vec::new();
    for (name, stage) in [("on", &on), ("off", &off)] {
        let key: Arc<str> = people::operators(stage, 1).await?.swap_remove(0).into();
        stage.execute("update users set role = 'admin'").await?;
        let api = Server::api(stage).await?;
        let paths: Arc<[String]> = Arc::new(["/api/v1/teams".to_owned()]);
        let site = Site::new(stage, &api, &paths, &key)
            .sending(Method::POST, r#"{ "name": "made" }"#)
            .expecting(StatusCode::CREATED);
        servers.push((name, api, site));
    }
    for _ in 0..turn.rounds {
        for (name, _, site) in &servers {
            rounds.pace(name, load::most(site, turn).await?);
        }
    }
    ensure!(
        off.count("select count(*) from audit where action = 'teams.create'").await? == 0,
        "the audit is off"
    );
    ensure!(
        on.count("select count(*) from audit where action = 'teams.create'").await? > 0,
        "the audit is on"
    );
    for (_, api, _) in servers {
        api.process.kill9().await;
    }
    Ok(Row::new("teams made, with their rows in the audit", Figure::PerSecond(rounds.median("on")))
        .against(Figure::PerSecond(rounds.median("off")))
        .target(Target::AtLeast(0.85))
        .note("reference: the same without those rows"))
}
