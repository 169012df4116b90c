//! What goes, and when: jobs that are over, and what keeps the engine's other tables small.
//!
//! There is no index on `finished_at`, which every job would pay for. Ids are made in the order of
//! time, so the oldest jobs lie at the start of the primary key: a pass walks from there in small
//! steps and stops where no job can be old enough. What is kept longer is walked over again at each
//! pass; that is little, for little fails.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use sqlx::PgConnection;
use streamspace_common::JobId;
use tracing::warn;
use uuid::Uuid;

use crate::inspect::id_at;

/// How long jobs are kept after their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub succeeded: Duration,
    pub cancelled: Duration,
    pub failed: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            succeeded: Duration::from_secs(7 * DAY),
            cancelled: Duration::from_secs(7 * DAY),
            failed: Duration::from_secs(30 * DAY),
        }
    }
}

impl Retention {
    /// The lowest id of jobs that are too young to go. Ids are made by the clocks of hosts: a day
    /// is left for those that go ahead.
    fn horizon(&self, now: Timestamp) -> Uuid {
        let shortest = self.succeeded.min(self.cancelled).min(self.failed);
        now.checked_sub(shortest).map_or(Uuid::nil(), |at| id_at(at + 24.hours()))
    }
}

/// Rows that one step looks at.
const STEP: i64 = 500;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub deleted: u64,
    /// Where the next step begins; the pass is over without it.
    pub next: Option<JobId>,
}

/// Deletes jobs that were over for their time, with their steps, keys and batch: one step of a pass.
///
/// Whoever takes a key over is waited for, as in [`crate::control::delete`].
pub async fn prune_jobs(
    conn: &mut PgConnection,
    retention: &Retention,
    after: Option<JobId>,
) -> sqlx::Result<Pruned> {
    let now = sqlx::query_scalar!(r#"select queue.now() as "now!""#).fetch_one(&mut *conn).await?.to_jiff();
    let seconds = |kept: Duration| kept.as_secs_f64();
    let row = sqlx::query!(
        r#"with scanned as materialized (
             select id from jobs where id > $1 and id < $2 order by id limit $3),
           gone as (
             delete from jobs j
             where j.id = any(array(select id from scanned))
               and (j.state = 'succeeded' and j.finished_at < queue.now() - make_interval(secs => $4)
                    or j.state = 'cancelled' and j.finished_at < queue.now() - make_interval(secs => $5)
                    or j.state = 'failed' and j.finished_at < queue.now() - make_interval(secs => $6))
             returning j.id, j.unique_mode),
           steps as (delete from job_steps s using gone where s.job_id = gone.id),
           batches as (delete from job_batches b using gone where b.job_id = gone.id),
           keys as (delete from job_keys k using gone where gone.unique_mode in (1, 2) and k.job_id = gone.id)
           select (select count(*) from gone) as "deleted!", (select count(*) from scanned) as "scanned!",
                  (select id from scanned order by id desc limit 1) as "last: JobId""#,
        after.map_or(Uuid::nil(), |after| after.0),
        retention.horizon(now),
        STEP,
        seconds(retention.succeeded),
        seconds(retention.cancelled),
        seconds(retention.failed),
    )
    .fetch_one(conn)
    .await?;
    Ok(Pruned {
        deleted: u64::try_from(row.deleted).unwrap_or(0),
        next: row.last.filter(|_| row.scanned == STEP),
    })
}

/// Rows of other tables that one call deletes at most.
const MOST: i64 = 5000;
/// Whoever parks for an event looks at what happened since its claim, which is hours ago at most.
const EVENT_HOURS: i32 = 24;

/// Deletes keys and events whose time is over; answers whether there may be more.
pub async fn prune_leftovers(conn: &mut PgConnection) -> sqlx::Result<bool> {
    let keys = sqlx::query!(
        "delete from job_keys where ctid = any(array(
           select ctid from job_keys where until < queue.now() limit $1 for update skip locked))",
        MOST,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected();
    let events = sqlx::query!(
        "delete from job_events where ctid = any(array(
           select ctid from job_events where at < queue.now() - make_interval(hours => $2) limit $1
           for update skip locked))",
        MOST,
        EVENT_HOURS,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok([keys, events].contains(&(MOST as u64)))
}

/// How long the ledger of schedules is kept.
const FIRES_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// Makes the months to come of partitioned tables, and drops those of the ledger that are over.
/// Answers whether it could: the tables may be in use, by a long report.
///
/// A change of their months waits for all who use them, and all others wait behind it: so not for long.
pub async fn keep_months(conn: &mut PgConnection) -> sqlx::Result<bool> {
    match change_months(conn).await {
        Ok(()) => Ok(true),
        Err(error) if is_lock_timeout(&error) => {
            warn!("the months of audit and job_fires are not kept yet: the tables are in use");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn change_months(conn: &mut PgConnection) -> sqlx::Result<()> {
    let mut tx = sqlx::Connection::begin(conn).await?;
    sqlx::query!("select set_config('lock_timeout', '1s', true)").fetch_one(&mut *tx).await?;
    // Two that find the same month missing would both make it.
    sqlx::query!("select pg_advisory_xact_lock(hashtext('queue.make_partitions'))")
        .fetch_one(&mut *tx)
        .await?;
    sqlx::query!("select queue.make_partitions()").fetch_one(&mut *tx).await?;
    sqlx::query!(
        "select queue.drop_partitions('job_fires', queue.now() - make_interval(secs => $1))",
        FIRES_KEPT.as_secs_f64(),
    )
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55P03")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_job_that_may_have_to_go_lies_past_the_horizon() {
        let now: Timestamp = "2026-11-21T00:00Z".parse().expect("a time");
        let retention = Retention { cancelled: Duration::from_secs(3600), ..Retention::default() };
        let made_at = |at: Timestamp| id_at(at);
        assert!(made_at(now - 1.hour()) < retention.horizon(now));
        // Made by a clock that goes ahead by most of a day.
        assert!(made_at(now + 22.hours()) < retention.horizon(now));
        assert!(made_at(now + 24.hours()) > retention.horizon(now));
    }
}
