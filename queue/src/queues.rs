//! Queues: what waits in them, and pauses and limits that hold over the whole fleet.
//!
//! A queue exists because a kind names it, or because something is stored of it; nothing creates one.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::{PLATFORM, TenantId, UserId};

use crate::{
    inspect::{QueueStats, Scope},
    tx::Tx,
};

#[derive(Clone, Debug, PartialEq)]
pub struct QueueRow {
    pub name: String,
    /// `None`: nothing of the reader's has ever been counted here.
    pub stats: Option<QueueStats>,
    /// What a platform administrator set; it holds for everyone.
    pub everyone: Controls,
    /// What a tenant set for its own jobs; the reader's tenant.
    pub tenant: Controls,
}

impl QueueRow {
    pub fn is_paused(&self) -> bool {
        self.everyone.paused_at.is_some() || self.tenant.paused_at.is_some()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Controls {
    pub paused_at: Option<Timestamp>,
    pub max_running: Option<i32>,
    pub rate: Option<Rate>,
    pub updated_at: Option<Timestamp>,
    pub updated_by: Option<UserId>,
}

/// So many starts in a second, minute or hour: `50/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: i32,
    pub per: Duration,
}

const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a rate; write a number and a unit of time, such as 50/s, 600/m or 1000/h"
            )
        };
        let (count, unit) = text.trim().split_once('/').ok_or_else(wrong)?;
        let count: i32 = count.trim().parse().map_err(|_| wrong())?;
        let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
        if !(1..=1_000_000).contains(&count) {
            return Err("a rate is between 1 and 1,000,000".into());
        }
        Ok(Self { count, per: Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.into_iter().find(|(_, seconds)| Duration::from_secs(*seconds) == self.per) {
            Some((unit, _)) => write!(f, "{}/{unit}", self.count),
            None => write!(f, "{} in {:?}", self.count, self.per),
        }
    }
}

/// What to change about a queue. `None` leaves as it is; `Some(None)` removes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangeQueue {
    pub paused: Option<bool>,
    pub max_running: Option<Option<i32>>,
    pub rate: Option<Option<Rate>>,
}

/// All queues that are known here or of which something of the scope is stored, by name.
pub async fn list(conn: &mut PgConnection, scope: Scope, known: &[&str]) -> sqlx::Result<Vec<QueueRow>> {
    read(conn, scope, known, None).await
}

pub async fn get(
    conn: &mut PgConnection,
    scope: Scope,
    known: &[&str],
    name: &str,
) -> sqlx::Result<Option<QueueRow>> {
    Ok(read(conn, scope, known, Some(name)).await?.into_iter().next())
}

async fn read(
    conn: &mut PgConnection,
    scope: Scope,
    known: &[&str],
    only: Option<&str>,
) -> sqlx::Result<Vec<QueueRow>> {
    let mut rows: BTreeMap<String, QueueRow> = BTreeMap::new();
    for name in known {
        rows.insert((*name).to_owned(), QueueRow::new(*name));
    }
    for stats in crate::inspect::queue_stats(conn, scope).await? {
        let name = stats.queue.clone();
        rows.entry(name.clone()).or_insert_with(|| QueueRow::new(name)).stats = Some(stats);
    }
    let controls = sqlx::query!(
        r#"select queue, tenant_id as "tenant: TenantId", paused_at, max_running, rate_count, rate_period_ms,
                  updated_at, updated_by as "updated_by: UserId"
           from queue_controls where tenant_id = $1 or tenant_id = $2"#,
        PLATFORM.0,
        scope.tenant().unwrap_or(PLATFORM).0,
    )
    .fetch_all(conn)
    .await?;
    for row in controls {
        let of = Controls {
            paused_at: row.paused_at.map(|at| at.to_jiff()),
            max_running: row.max_running,
            rate: row.rate_count.zip(row.rate_period_ms).map(|(count, ms)| Rate {
                count,
                per: Duration::from_millis(u64::try_from(ms).unwrap_or(0)),
            }),
            updated_at: Some(row.updated_at.to_jiff()),
            updated_by: row.updated_by,
        };
        let queue = rows.entry(row.queue.clone()).or_insert_with(|| QueueRow::new(row.queue));
        if row.tenant == PLATFORM { queue.everyone = of } else { queue.tenant = of }
    }
    Ok(rows.into_values().filter(|row| only.is_none_or(|only| row.name == only)).collect())
}

impl QueueRow {
    fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), stats: None, everyone: Controls::default(), tenant: Controls::default() }
    }
}

/// Changes pause and limits for `owner`'s jobs, or for everyone's when that is the platform. Every
/// worker obeys within a second.
pub async fn set(tx: &mut Tx, owner: TenantId, queue: &str, change: &ChangeQueue) -> sqlx::Result<()> {
    let rate = change.rate.flatten();
    let by = tx.actor().user.map(|user| user.0);
    let conn = tx.conn().await?;
    sqlx::query!(
        "insert into queue_controls as c (queue, tenant_id, paused_at, max_running, rate_count, rate_period_ms,
                                          updated_at, updated_by)
         values ($1, $2, case when $3::bool then queue.now() end, $5, $7, $8, queue.now(), $9)
         on conflict (queue, tenant_id) do update set
           paused_at = case when $3 is null then c.paused_at when $3 then coalesce(c.paused_at, queue.now()) end,
           max_running = case when $4 then $5 else c.max_running end,
           rate_count = case when $6 then $7 else c.rate_count end,
           rate_period_ms = case when $6 then $8 else c.rate_period_ms end,
           tokens = case when $6 then 0 else c.tokens end,
           refilled_at = case when $6 then null else c.refilled_at end,
           updated_at = queue.now(), updated_by = $9",
        queue,
        owner.0,
        change.paused,
        change.max_running.is_some(),
        change.max_running.flatten(),
        change.rate.is_some(),
        rate.map(|rate| rate.count),
        rate.map(|rate| i64::try_from(rate.per.as_millis()).unwrap_or(i64::MAX)),
        by,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "delete from queue_controls where queue = $1 and tenant_id = $2
           and paused_at is null and max_running is null and rate_count is null",
        queue,
        owner.0,
    )
    .execute(conn)
    .await?;
    tx.notices().controls = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for text in ["50/s", "600/m", "1000/h"] {
            assert_eq!(text.parse::<Rate>().expect("a rate").to_string(), text);
        }
        for text in ["", "50", "50/", "/s", "0/s", "-1/s", "50/d", "1.5/s", "9999999/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
    }
}
