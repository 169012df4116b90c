//! The bare loop that the engine is measured against: no lanes, fairness, keys, fences or events.
//! Two connections, each claiming a hundred rows and completing them by id, as fast as it can.

use std::time::Instant;

use anyhow::Result;
use serde_json::value::RawValue;
use sqlx::{Connection, PgConnection, types::Json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{
    cpu::{Meter, Pace},
    stage::{Stage, Turn, tenant},
};

pub const CLAIM: i64 = 100;

/// In the lane of one tenant: the index that the engine uses is the one that serves it.
pub const OF_ONE_TENANT: &str = "update jobs j set state = 'running', attempt = j.attempt + 1, fence = j.fence + 1, boot_id = $3, claimed_at = now()
     from (select id from jobs where state = 'queued' and lane = $1 and tenant_id = $2
           order by order_at, id limit $4 for update skip locked) c
     where j.id = c.id returning j.id, j.kind, j.fence, j.attempt, j.args";

/// Of all tenants in one order: needs an index on it.
pub const OF_ALL: &str = "update jobs j set state = 'running', attempt = j.attempt + 1, fence = j.fence + 1, boot_id = $3, claimed_at = now()
     from (select id from jobs where state = 'queued' and lane = $1 and $2::uuid is not null
           order by order_at, id limit $4 for update skip locked) c
     where j.id = c.id returning j.id, j.kind, j.fence, j.attempt, j.args";

const COMPLETE: &str =
    "update jobs set state = 'succeeded', finished_at = now(), boot_id = null where id = any($1)";

/// How fast two connections do it.
pub async fn rate(stage: &Stage, claim: &'static str, lane: &str, turn: Turn) -> Result<Pace> {
    let from = Instant::now() + turn.warm_up;
    let until = from + turn.window;
    let one = spawn(stage.url().to_owned(), claim, lane.to_owned(), from, until);
    let other = spawn(stage.url().to_owned(), claim, lane.to_owned(), from, until);
    tokio::time::sleep_until(from.into()).await;
    let meter = Meter::start(stage.postmaster)?;
    let (one, other) = tokio::try_join!(one, other)?;
    let jobs = one? + other?;
    let (own, server) = meter.used()?.per_job(jobs);
    Ok(Pace { rate: jobs as f64 / turn.window.as_secs_f64(), own, server })
}

fn spawn(
    url: String,
    claim: &'static str,
    lane: String,
    from: Instant,
    until: Instant,
) -> JoinHandle<Result<u64>> {
    tokio::spawn(async move { complete_all(&url, claim, &lane, from, until).await })
}

/// What a worker needs of a job: id, kind, fence, attempt, payload.
type Claimed = (Uuid, String, i64, i32, Json<Box<RawValue>>);

/// How many it completed in the window.
async fn complete_all(
    url: &str,
    claim: &'static str,
    lane: &str,
    from: Instant,
    until: Instant,
) -> Result<u64> {
    let mut connection = PgConnection::connect(url).await?;
    let boot = Uuid::now_v7();
    let mut completed = 0;
    loop {
        let claimed: Vec<Claimed> = sqlx::query_as(claim)
            .bind(lane)
            .bind(tenant(0).0)
            .bind(boot)
            .bind(CLAIM)
            .fetch_all(&mut connection)
            .await?;
        anyhow::ensure!(!claimed.is_empty(), "the bare loop ran out of rows");
        let ids: Vec<Uuid> = claimed.iter().map(|row| row.0).collect();
        sqlx::query(COMPLETE).bind(&ids).execute(&mut connection).await?;
        let now = Instant::now();
        if now >= until {
            break;
        }
        if now >= from {
            completed += ids.len() as u64;
        }
    }
    connection.close().await?;
    Ok(completed)
}
