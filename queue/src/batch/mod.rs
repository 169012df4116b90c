//! Work over many items: a parent job, a row an item, child jobs over 100 items each.
//!
//! An item's outcome commits with its effect, so a crash repeats no finished item. Counts are added
//! to the batch's row once a chunk, in the transaction that ends the chunk; the last one wakes the
//! parent, which is parked meanwhile and holds no slot. Should a chunk end without counting, because
//! it failed or was cancelled on its own, the parent finds out when its wait times out and closes
//! what is left.
//!
//! Rows are locked in one order: items, the batch, the parent, the chunk, the event that wakes the parent.

mod count;

use std::{future::Future, marker::PhantomData, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use sqlx::PgConnection;
use streamspace_common::{Classified, ErrorKind, JobId};

use crate::{
    attempt::Attempt,
    enqueue::{EnqueueError, Options, enqueue_many, enqueue_with},
    job::{Job, Slot, hours},
    outcome::{Done, Failure},
    registry::Registry,
    tx::Tx,
};
use count::{CHUNKS_MADE, close, count_chunk, ended_event, unfinished_chunks};
pub(crate) use count::{cancel_pending, reopen};

/// One kind of work over many items. The value is what all items have in common.
pub trait Batch: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The kind of the parent, which is what people see.
    const KIND: &'static str;
    /// The kind of the chunks.
    const CHUNK_KIND: &'static str;
    const QUEUE: &'static str = "batch";
    /// For one chunk.
    const TIMEOUT: Duration = hours(1);
    /// Of one chunk: how often items that ask for it are tried again.
    const ATTEMPTS: i32 = 5;
    const FOR_A_PERSON: bool = false;

    /// What one item's row holds: an id.
    type Item: Serialize + DeserializeOwned + Send + Sync + 'static;
    type Ctx: Send + Sync + 'static;

    /// Does one item, and commits through `at`. A permanent failure is the item's alone; one to
    /// retry is tried again with the chunk's next attempt.
    fn item(
        &self,
        ctx: &Self::Ctx,
        item: Self::Item,
        at: &ItemAttempt<'_>,
    ) -> impl Future<Output = Result<ItemDone, Failure>> + Send;
}

impl Registry {
    /// Adds the two kinds of a batch.
    #[must_use]
    pub fn register_batch<B: Batch>(self, ctx: std::sync::Arc<B::Ctx>) -> Self {
        self.register::<Parent<B>>(ctx.clone()).register::<Chunk<B>>(ctx)
    }
}

pub const MOST_ITEMS: usize = 10_000;
const CHUNK: i32 = 100;
/// How soon the parent notices chunks that could not say that they ended.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default)]
pub struct BatchOptions {
    /// Chunks that run at a time.
    pub max_concurrency: Option<i16>,
    /// A maintenance window.
    pub run_at: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("a batch of {0} items; at most {MOST_ITEMS}")]
    TooMany(usize),
    #[error("an item is not JSON")]
    Item(#[source] serde_json::Error),
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for BatchError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TooMany(_) => ErrorKind::Invalid,
            Self::Item(_) => ErrorKind::Internal,
            Self::Enqueue(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }
}

/// Starts a batch. Its job is its id.
pub async fn start<B: Batch>(
    tx: &mut Tx,
    batch: B,
    items: impl IntoIterator<Item = B::Item>,
    options: BatchOptions,
) -> Result<JobId, BatchError> {
    let items: Vec<Value> =
        items.into_iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(BatchError::Item)?;
    if items.len() > MOST_ITEMS {
        return Err(BatchError::TooMany(items.len()));
    }
    let parent = Parent { batch, max_concurrency: options.max_concurrency };
    let job = enqueue_with(tx, parent, Options { run_at: options.run_at, ..Options::default() }).await?.id;
    let tenant = tx.tenant();
    sqlx::query!(
        "with batch as (
           insert into job_batches (job_id, tenant_id, total) values ($1, $2, cardinality($3::jsonb[])) returning job_id)
         insert into job_batch_items (batch_id, item_no, item)
         select job_id, n - 1, item from batch, unnest($3::jsonb[]) with ordinality as i(item, n)",
        job.0,
        tenant.0,
        &items,
    )
    .execute(tx.conn().await?)
    .await?;
    Ok(job)
}

/// The job that people see.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Parent<B: Batch> {
    batch: B,
    max_concurrency: Option<i16>,
}

impl<B: Batch> Job for Parent<B> {
    const KIND: &'static str = B::KIND;
    const QUEUE: &'static str = B::QUEUE;
    const TIMEOUT: Duration = hours(24);
    const FOR_A_PERSON: bool = B::FOR_A_PERSON;
    type Ctx = B::Ctx;

    async fn run(self, _: &B::Ctx, attempt: &Attempt) -> Result<Done, Failure> {
        let batch = attempt.id();
        // Chunks of a batch that was cancelled may still be stopping when it is run again.
        wait_for_chunks(attempt).await?;
        attempt
            .step(CHUNKS_MADE, async |tx: &mut Tx| {
                let total = total(tx.conn().await?, batch).await?;
                let chunks = (0..total).step_by(CHUNK as usize).map(|from| Chunk {
                    batch: self.batch.clone(),
                    of: batch,
                    from,
                    until: (from + CHUNK).min(total),
                    max_concurrency: self.max_concurrency,
                });
                let options = Options { parent: Some(batch), ..Options::default() };
                let made = enqueue_many(tx, chunks, &options).await?.len() as i32;
                sqlx::query!("update job_batches set chunks = $2 where job_id = $1", batch.0, made)
                    .execute(tx.conn().await?)
                    .await?;
                Ok::<_, BatchError>(made)
            })
            .await?;
        wait_for_chunks(attempt).await?;
        attempt.commit(async |tx: &mut Tx| close(tx, batch).await).await
    }
}

/// Parks the parent while a chunk is to end.
async fn wait_for_chunks(parent: &Attempt) -> Result<(), Failure> {
    let mut tx = parent.begin();
    let unfinished = unfinished_chunks(tx.conn().await?, parent.id()).await?;
    tx.rollback().await?;
    if unfinished {
        return Err(Failure::Park { event: ended_event(parent.id()), timeout: LOOK_AGAIN });
    }
    Ok(())
}

/// Items of a batch, `from` to `until`.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Chunk<B: Batch> {
    batch: B,
    of: JobId,
    from: i32,
    until: i32,
    max_concurrency: Option<i16>,
}

impl<B: Batch> Job for Chunk<B> {
    const KIND: &'static str = B::CHUNK_KIND;
    const QUEUE: &'static str = B::QUEUE;
    const TIMEOUT: Duration = B::TIMEOUT;
    const ATTEMPTS: i32 = B::ATTEMPTS;
    const FOR_A_PERSON: bool = B::FOR_A_PERSON;
    type Ctx = B::Ctx;

    fn slots(&self) -> Vec<Slot> {
        let limit = |most| Slot::per_tenant(format!("batch:{}", self.of), most);
        self.max_concurrency.map(limit).into_iter().collect()
    }

    async fn run(self, ctx: &B::Ctx, attempt: &Attempt) -> Result<Done, Failure> {
        let mut tx = attempt.begin();
        let pending = pending(tx.conn().await?, self.of, self.from, self.until).await?;
        tx.rollback().await?;
        let mut again = None;
        for (number, item) in pending {
            if attempt.cancel.is_cancelled() {
                return Err(Failure::Cancelled);
            }
            let at = ItemAttempt { attempt, batch: self.of, number };
            let failed = match serde_json::from_value(item) {
                Ok(item) => self.batch.item(ctx, item, &at).await.err(),
                Err(error) => Some(Failure::permanent(error)),
            };
            match failed {
                None => {}
                Some(Failure::Permanent(error)) => at.fail(&error).await?,
                Some(Failure::Retry { error, .. }) if attempt.is_last() => at.fail(&error).await?,
                Some(failure @ Failure::Retry { .. }) => again = Some(failure),
                Some(failure) => return Err(failure),
            }
        }
        match again {
            Some(failure) => Err(failure),
            None => {
                attempt
                    .commit(async |tx: &mut Tx| count_chunk(tx, self.of, self.from, self.until).await)
                    .await
            }
        }
    }
}

/// One attempt at one item.
pub struct ItemAttempt<'a> {
    attempt: &'a Attempt,
    batch: JobId,
    number: i32,
}

/// Only a commit makes one.
#[derive(Debug)]
pub struct ItemDone(PhantomData<()>);

impl ItemAttempt<'_> {
    pub fn attempt(&self) -> &Attempt {
        self.attempt
    }

    /// The key of the item's effect outside the database, the same in every attempt.
    pub fn key(&self, step: &str) -> String {
        format!("{}-{}-{step}", self.batch, self.number)
    }

    /// Runs the effect, marks the item as done and checks the fence, in one transaction.
    pub async fn commit<T, E, F>(&self, effect: F) -> Result<ItemDone, Failure>
    where
        E: Into<Failure>,
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
    {
        let mut tx = self.attempt.begin();
        effect(&mut tx).await.map_err(Into::into)?;
        self.mark(&mut tx, "succeeded", None).await?;
        tx.commit().await?;
        Ok(ItemDone(PhantomData))
    }

    /// Marks the item as done; its effect is elsewhere, or none was needed.
    pub async fn done(&self) -> Result<ItemDone, Failure> {
        self.commit(async |_: &mut Tx| Ok::<_, sqlx::Error>(())).await
    }

    async fn fail(&self, error: &str) -> Result<(), Failure> {
        let mut tx = self.attempt.begin();
        let error: String = error.chars().filter(|c| *c != '\0').take(MAX_ERROR).collect();
        self.mark(&mut tx, "failed", Some(&error)).await?;
        Ok(tx.commit().await?)
    }

    async fn mark(&self, tx: &mut Tx, state: &str, error: Option<&str>) -> Result<(), Failure> {
        let conn = tx.conn().await?;
        let marked = sqlx::query!(
            "update job_batch_items set state = $3, error = $4
             where batch_id = $1 and item_no = $2 and state = 'pending'",
            self.batch.0,
            self.number,
            state,
            error,
        )
        .execute(&mut *conn)
        .await?;
        let hold = &self.attempt.hold;
        let held = sqlx::query_scalar!(
            r#"select 1 as "held!" from jobs where id = $1 and fence = $2 for no key update"#,
            hold.id.0,
            hold.fence,
        )
        .fetch_optional(conn)
        .await?;
        if held.is_none() {
            return Err(self.attempt.stale());
        }
        // Cancelled while it was being done: what was done is undone with this transaction.
        if marked.rows_affected() == 0 { Err(Failure::Cancelled) } else { Ok(()) }
    }
}

const MAX_ERROR: usize = 4096;

async fn total(conn: &mut PgConnection, batch: JobId) -> sqlx::Result<i32> {
    sqlx::query_scalar!("select total from job_batches where job_id = $1", batch.0).fetch_one(conn).await
}

async fn pending(
    conn: &mut PgConnection,
    batch: JobId,
    from: i32,
    until: i32,
) -> sqlx::Result<Vec<(i32, Value)>> {
    let rows = sqlx::query!(
        "select item_no, item from job_batch_items
         where batch_id = $1 and item_no >= $2 and item_no < $3 and state = 'pending' order by item_no",
        batch.0,
        from,
        until,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.item_no, row.item)).collect())
}

/// An item that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemError {
    pub number: i32,
    pub item: Value,
    pub error: String,
}

/// Items of a batch that failed, after the numbered one.
pub async fn errors(
    conn: &mut PgConnection,
    batch: JobId,
    after: Option<i32>,
    limit: u32,
) -> sqlx::Result<Vec<ItemError>> {
    sqlx::query_as!(
        ItemError,
        r#"select item_no as number, item, coalesce(error, '') as "error!" from job_batch_items
           where batch_id = $1 and state = 'failed' and item_no > $2 order by item_no limit $3"#,
        batch.0,
        after.unwrap_or(-1),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await
}
