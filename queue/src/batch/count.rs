//! How far a batch is, and its end.
//!
//! An item is counted once: it carries a mark, set by the statement that adds it up.

use sqlx::PgConnection;
use streamspace_common::JobId;
use uuid::Uuid;

use crate::{attempt::Progress, inspect::BatchCounts, tx::Tx};

/// The step in which the parent makes its chunks.
pub(super) const CHUNKS_MADE: &str = "chunks";

/// Wakes the parent.
pub(super) fn ended_event(batch: JobId) -> String {
    format!("batch:{batch}")
}

/// Whether a chunk is still to end.
pub(super) async fn unfinished_chunks(conn: &mut PgConnection, batch: JobId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from jobs where parent_id = $1
                            and state not in ('succeeded', 'failed', 'cancelled')) as "unfinished!""#,
        batch.0,
    )
    .fetch_one(conn)
    .await
}

/// Adds what ended in a chunk, the items `from` to `until`, to the batch, and tells who watches the
/// parent. The last chunk wakes it.
pub(super) async fn count_chunk(
    tx: &mut Tx,
    batch: JobId,
    from: i32,
    until: i32,
) -> sqlx::Result<BatchCounts> {
    let counts = count(tx.conn().await?, batch, from, until).await?;
    let progress = Progress::of(
        u64::try_from(counts.processed()).unwrap_or(0),
        u64::try_from(counts.total).unwrap_or(0),
        "items",
    );
    let version = sqlx::query_scalar!(
        "update jobs set progress = $2, row_version = row_version + 1
         where id = $1 and state not in ('succeeded', 'failed', 'cancelled') returning row_version",
        batch.0,
        serde_json::to_value(progress).unwrap_or_default(),
    )
    .fetch_optional(tx.conn().await?)
    .await?;
    if let Some(version) = version {
        tx.notices().changed(batch, version);
    }
    if counts.processed() >= counts.total {
        tx.happened(ended_event(batch));
    }
    Ok(counts)
}

/// Adds what ended and was not counted yet.
async fn count(conn: &mut PgConnection, batch: JobId, from: i32, until: i32) -> sqlx::Result<BatchCounts> {
    sqlx::query_as!(
        BatchCounts,
        "with ended as (
           update job_batch_items set counted = true
           where batch_id = $1 and item_no >= $2 and item_no < $3 and not counted and state <> 'pending'
           returning state),
         n as (select count(*) filter (where state = 'succeeded')::int as succeeded,
                      count(*) filter (where state = 'failed')::int as failed,
                      count(*) filter (where state = 'cancelled')::int as cancelled from ended)
         update job_batches b set succeeded = b.succeeded + n.succeeded, failed = b.failed + n.failed,
                cancelled = b.cancelled + n.cancelled
         from n where b.job_id = $1
         returning b.total, b.succeeded, b.failed, b.cancelled",
        batch.0,
        from,
        until,
    )
    .fetch_one(conn)
    .await
}

/// Ends a batch: items that no chunk will do any more have failed.
pub(super) async fn close(tx: &mut Tx, batch: JobId) -> sqlx::Result<BatchCounts> {
    let conn = tx.conn().await?;
    sqlx::query!(
        "update job_batch_items set state = 'failed', error = 'the job that was to do it ended without it'
         where batch_id = $1 and state = 'pending'",
        batch.0,
    )
    .execute(&mut *conn)
    .await?;
    count(conn, batch, 0, i32::MAX).await
}

/// Begins batches again that were cancelled or failed: what was cancelled is pending, and the parent
/// makes chunks for what is. What was done stays done, and what failed stays failed.
pub(crate) async fn reopen(conn: &mut PgConnection, jobs: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        "with batches as (update job_batches set cancelled = 0 where job_id = any($1) returning job_id),
              steps as (delete from job_steps s using batches b where s.job_id = b.job_id and s.step = $2)
         update job_batch_items i set state = 'pending', counted = false
         from batches b where i.batch_id = b.job_id and i.state = 'cancelled'",
        jobs,
        CHUNKS_MADE,
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Cancels what has not begun, and counts everything that has ended until now. An item that is
/// being done at this moment can't commit any more.
pub(crate) async fn cancel_pending(tx: &mut Tx, batch: JobId) -> sqlx::Result<()> {
    let conn = tx.conn().await?;
    sqlx::query!(
        "update job_batch_items set state = 'cancelled' where batch_id = $1 and state = 'pending'",
        batch.0,
    )
    .execute(&mut *conn)
    .await?;
    count(conn, batch, 0, i32::MAX).await.map(drop)
}
