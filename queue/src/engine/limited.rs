//! Claims from queues with a limit over the whole fleet.
//!
//! Such a claim locks the queue's row of `queue_controls`, so claims of a limited queue take turns
//! and what they count is exact. Nothing is counted up or down when jobs end: a limit can't leak.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use sqlx::{Connection, PgConnection};
use streamspace_common::{BootId, PLATFORM, TenantId};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Engine, controls::Controls, fetch::Claims};
use crate::{
    claim::{self, Claimed},
    db::{ANSWER, BEGIN_IMPATIENTLY, is_held, within},
    lanes::Ask,
};

/// A bucket holds this many seconds of its rate: enough that no worker's pace loses tokens, little
/// enough that no second sees a burst.
const BUCKET_SECONDS: f64 = 0.08;
/// After a limit is met, or found locked, look again this often in case no notice comes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How many more a control lets start now.
struct Allowance {
    tenant: TenantId,
    most: usize,
    /// Of the bucket, when the control has a rate.
    tokens: Option<f64>,
    rate: Option<f64>,
}

impl Engine {
    /// One claim from one limited queue with work, if its limits allow it now.
    pub(super) async fn claim_limited(
        &self,
        claims: &mut Claims,
        boot: BootId,
        free: usize,
        controls: &Controls,
    ) -> sqlx::Result<Option<Vec<Claimed>>> {
        let now = Instant::now();
        for queue in controls.limited_queues_after(&claims.limited_last) {
            if self.take_freed(queue) {
                claims.limits.forget(queue);
            }
            if !self.lanes.lock().expect("no panic while it was held").has_work(queue) {
                continue;
            }
            // Who is allowed nothing is left out from then on, and the next are asked.
            loop {
                let not_yet = &claims.limits;
                let asks = self.ask(free, self.options.concurrency, &|lane| {
                    lane.queue() == queue && controls.is_limited(lane) && not_yet.allow(queue, lane.tenant)
                });
                if asks.is_empty() {
                    break;
                }
                let answer = match claims.open(self).await {
                    Ok(conn) => within(ANSWER, claim_within_limits(conn, boot, queue, &asks)).await,
                    Err(error) => Err(error),
                };
                let claimed = match answer {
                    Ok(claimed) => claimed,
                    Err(error) if is_held(&error) => {
                        claims.limits.wait(queue, PLATFORM, Instant::now() + LOOK_AGAIN);
                        self.lanes.lock().expect("no panic while it was held").passed(asks);
                        break;
                    }
                    Err(error) => {
                        self.lanes.lock().expect("no panic while it was held").unanswered(asks);
                        return Err(error);
                    }
                };
                for (tenant, wait) in claimed.waits {
                    claims.limits.wait(queue, tenant, now + wait);
                }
                self.lanes.lock().expect("no panic while it was held").passed(claimed.passed);
                if claimed.asked.is_empty() {
                    continue;
                }
                self.learn(claimed.asked, &claimed.rows);
                queue.clone_into(&mut claims.limited_last);
                // Also without a row: the lane rests from now on, and what it was allowed is for another one,
                // which nobody would tell.
                return Ok(Some(claimed.rows));
            }
        }
        Ok(None)
    }
}

struct Limited {
    rows: Vec<Claimed>,
    /// Lanes that were allowed something, each for so many; and those that were not.
    asked: Vec<Ask>,
    passed: Vec<Ask>,
    /// Whose limit allows no more, and for how long: a tenant's own, or the platform's for all. Of each
    /// lane that was passed it is one of these, unless others were asked.
    waits: Vec<(TenantId, Duration)>,
}

/// Until when limits are known to allow nothing: by queue, and by the tenant whose limit it is.
#[derive(Default)]
pub(super) struct Limits {
    closed: HashMap<String, HashMap<TenantId, Instant>>,
    /// What was read under other limits is worth nothing.
    under: Weak<Controls>,
}

impl Limits {
    pub(super) fn are(&mut self, controls: &Arc<Controls>) {
        if !std::ptr::eq(self.under.as_ptr(), Arc::as_ptr(controls)) {
            self.closed.clear();
            self.under = Arc::downgrade(controls);
        }
    }

    /// When the next of them may allow something.
    pub(super) fn next(&self) -> Option<Instant> {
        self.closed.values().flat_map(HashMap::values).min().copied()
    }

    fn allow(&self, queue: &str, tenant: TenantId) -> bool {
        self.closed.get(queue).is_none_or(|of| !of.contains_key(&PLATFORM) && !of.contains_key(&tenant))
    }

    pub(super) fn wait(&mut self, queue: &str, tenant: TenantId, until: Instant) {
        let of = self.closed.entry(queue.to_owned()).or_default();
        of.entry(tenant).and_modify(|at| *at = until.max(*at)).or_insert(until);
    }

    fn forget(&mut self, queue: &str) {
        self.closed.remove(queue);
    }

    pub(super) fn forget_before(&mut self, now: Instant) {
        self.closed.retain(|_, of| {
            of.retain(|_, until| *until > now);
            !of.is_empty()
        });
    }
}

async fn claim_within_limits(
    conn: &mut PgConnection,
    boot: BootId,
    queue: &str,
    asks: &[Ask],
) -> sqlx::Result<Limited> {
    let tenants: Vec<_> = asks.iter().map(|ask| ask.lane.tenant.0).chain([PLATFORM.0]).collect();
    let mut tx = conn.begin_with(BEGIN_IMPATIENTLY).await?;
    // In one order, so that two claims can't wait for each other.
    sqlx::query!(
        "select 1 as locked from queue_controls where queue = $1 and tenant_id = any($2)
         order by tenant_id for update",
        queue,
        &tenants,
    )
    .fetch_all(&mut *tx)
    .await?;
    // A new statement, so a new snapshot: it sees what the claim before us took.
    let (allowances, filled_at, mut waits) = allowances(&mut tx, queue, &tenants).await?;

    let all = allowances.iter().find(|a| a.tenant == PLATFORM).map_or(usize::MAX, |a| a.most);
    let mut left = all;
    let mut used: HashMap<TenantId, usize> = HashMap::new();
    let (mut asked, mut passed) = (Vec::new(), Vec::new());
    for ask in asks {
        let own = allowances.iter().find(|a| a.tenant == ask.lane.tenant).map_or(usize::MAX, |a| a.most);
        let used = used.entry(ask.lane.tenant).or_default();
        let most = ask.most.min(own.saturating_sub(*used)).min(left);
        left -= most;
        *used += most;
        if most > 0 {
            asked.push(ask.limited(most));
        } else {
            passed.push(ask.clone());
        }
    }
    let rows = if asked.is_empty() { Vec::new() } else { claim::claim(&mut tx, boot, &asked).await? };

    let mut spent: HashMap<TenantId, usize> = HashMap::new();
    for row in &rows {
        *spent.entry(row.tenant).or_default() += 1;
    }
    let (mut filled, mut tokens_left) = (Vec::new(), Vec::new());
    for allowance in &allowances {
        let Some(tokens) = allowance.tokens else { continue };
        let used = if allowance.tenant == PLATFORM {
            rows.len()
        } else {
            spent.get(&allowance.tenant).copied().unwrap_or(0)
        };
        let left = tokens - used as f64;
        filled.push(allowance.tenant.0);
        tokens_left.push(left);
        if let Some(rate) = allowance.rate
            && left < 1.0
        {
            waits.push((allowance.tenant, Duration::from_secs_f64(((1.0 - left) / rate).clamp(0.001, 60.0))));
        }
    }
    if !filled.is_empty() {
        sqlx::query!(
            "update queue_controls c set tokens = u.tokens, refilled_at = $4
             from unnest($2::uuid[], $3::float8[]) as u(tenant_id, tokens)
             where c.queue = $1 and c.tenant_id = u.tenant_id",
            queue,
            &filled,
            &tokens_left,
            filled_at,
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(Limited { rows, asked, passed, waits })
}

type Filled = Option<jiff_sqlx::Timestamp>;

/// What the controls of a queue let start now, up to when their buckets are filled, and who is at a limit.
async fn allowances(
    conn: &mut PgConnection,
    queue: &str,
    tenants: &[Uuid],
) -> sqlx::Result<(Vec<Allowance>, Filled, Vec<(TenantId, Duration)>)> {
    // What runs is counted once, and not at all for rates.
    let rows = sqlx::query!(
        r#"with running as (
             select tenant_id, count(*) as n from jobs where state = 'running' and queue = $1 group by tenant_id)
           select c.tenant_id as "tenant: TenantId", c.max_running, c.rate_count,
                  c.rate_period_ms, c.tokens, queue.now() as "at!",
                  extract(epoch from queue.now() - c.refilled_at)::float8 as since,
                  case when c.max_running is null then 0
                       else (select coalesce(sum(r.n), 0)::bigint from running r
                             where $3 = c.tenant_id or r.tenant_id = c.tenant_id) end as "running!"
           from queue_controls c where c.queue = $1 and c.tenant_id = any($2)"#,
        queue,
        tenants,
        PLATFORM.0,
    )
    .fetch_all(conn)
    .await?;
    // The bucket is filled up to this moment, and from it the next time: no time falls between two.
    let filled_at = rows.first().map(|row| row.at);
    let mut waits = Vec::new();
    let mut allowances = Vec::new();
    for row in rows {
        let mut most = usize::MAX;
        if let Some(limit) = row.max_running {
            most = usize::try_from(i64::from(limit) - row.running).unwrap_or(0);
            if most == 0 {
                waits.push((row.tenant, LOOK_AGAIN));
            }
        }
        let mut tokens = None;
        let rate = row.rate_count.zip(row.rate_period_ms).map(|(n, ms)| f64::from(n) * 1000.0 / ms as f64);
        if let Some(rate) = rate {
            let bucket = (rate * BUCKET_SECONDS).max(1.0);
            let filled = row.since.map_or(bucket, |since| (row.tokens + since.max(0.0) * rate).min(bucket));
            most = most.min(filled as usize);
            tokens = Some(filled);
        }
        allowances.push(Allowance { tenant: row.tenant, most, tokens, rate });
    }
    Ok((allowances, filled_at, waits))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use streamspace_testkit::Postgres;

    use super::*;

    /// However many run: each claim of the queue would look at all of them.
    #[tokio::test]
    async fn a_rate_does_not_count_what_runs() {
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        let postgres = Postgres::shared().await;
        let database =
            postgres.template(&migrations).await.expect("a template").database().await.expect("a database");
        for (column, counts) in [("rate_count = 5, rate_period_ms = 1000", false), ("max_running = 5", true)]
        {
            let mut conn = PgConnection::connect(database.url()).await.expect("a connection");
            let mut tx = conn.begin().await.expect("a transaction");
            let control = format!(
                "insert into queue_controls (queue, tenant_id, updated_at) values ('q', '{}', now());
                 update queue_controls set {column}",
                PLATFORM.0
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(control)).execute(&mut *tx).await.expect("limited");
            let (found, ..) = allowances(&mut tx, "q", &[PLATFORM.0]).await.expect("read");
            assert_eq!(found.len(), 1);
            let looked: bool = sqlx::query_scalar(
                "select seq_scan + coalesce(idx_scan, 0) > 0 from pg_stat_xact_user_tables where relname = 'jobs'",
            )
            .fetch_one(&mut *tx)
            .await
            .expect("counted");
            assert_eq!(looked, counts, "{column}");
        }
    }
}
