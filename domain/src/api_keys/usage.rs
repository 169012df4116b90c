//! What keys are used for: a log of calls, and their number by day.
//!
//! A request does not wait for this. The process that answers it keeps its calls in memory and writes
//! many at a time, so the last seconds of a process that is killed are missing.

use std::time::Duration;

use sqlx::PgConnection;
use streamspace_common::{Actor, ApiKeyId};
use streamspace_queue::Queue;
use uuid::Uuid;

use super::{Call, Day, Error, LoggedCall, store, usage_store, visible};

/// Calls that one statement writes.
pub const BATCH: usize = 1000;
/// How long the log is kept, in months of the calendar that ended before.
const CALLS_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
const DAYS_KEPT: i32 = 400;
const MOST_PRUNED: i64 = 5000;

/// Writes calls, and with them when their keys were last used. A call that is written already, by an
/// attempt whose answer was lost, is not counted again.
pub async fn write(queue: &Queue, calls: &[Call]) -> sqlx::Result<()> {
    for calls in calls.chunks(BATCH) {
        let mut tx = queue.db().begin().await?;
        usage_store::write_calls(&mut tx, calls).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// A page of a key's calls, newest first, before the cursor.
pub async fn calls(
    conn: &mut PgConnection,
    actor: &Actor,
    key: ApiKeyId,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<LoggedCall>, Error> {
    let key = visible(conn, actor, key, store::Lock::None).await?;
    Ok(usage_store::calls(conn, actor.tenant, key.id, before, limit).await?)
}

/// Its last days on which it was used, newest first.
pub async fn days(
    conn: &mut PgConnection,
    actor: &Actor,
    key: ApiKeyId,
    days: u32,
) -> Result<Vec<Day>, Error> {
    let key = visible(conn, actor, key, store::Lock::None).await?;
    Ok(usage_store::days(conn, actor.tenant, key.id, days).await?)
}

/// Forgets secrets whose overlap is over, and days that are long gone; answers whether there may be
/// more.
pub(crate) async fn prune(conn: &mut PgConnection) -> sqlx::Result<bool> {
    let secrets = store::end_overlaps(conn, MOST_PRUNED).await?;
    let days = usage_store::prune_days(conn, DAYS_KEPT, MOST_PRUNED).await?;
    Ok([secrets, days].contains(&MOST_PRUNED.unsigned_abs()))
}

/// Drops the months of calls that are over. Not while the table is in use for long.
pub(crate) async fn drop_months(conn: &mut PgConnection) -> sqlx::Result<()> {
    usage_store::drop_months(conn, CALLS_KEPT).await
}
