//! Enqueue: rows in the caller's own transaction. Commit = visible, rollback = gone.

mod insert;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::types::Json;
use streamspace_common::{Creator, JobId, TenantId, UserId};

use self::insert::insert;
use crate::{
    job::{Job, Slot, Unique, UniqueWhile},
    notice::Lane,
    tx::Tx,
};

/// How one job differs from its kind's defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub delay: Option<Duration>,
    pub run_at: Option<Timestamp>,
    /// -100 to 100. One step is worth a minute of waiting, so nothing starves.
    pub priority: i16,
    pub queue: Option<String>,
    pub max_attempts: Option<i32>,
    pub parent: Option<JobId>,
    /// Who made it, when that is not the transaction's actor: a schedule.
    pub creator: Option<Creator>,
    /// Whose it is to see, when that is not the actor's person.
    pub user: Option<UserId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueued {
    pub id: JobId,
    /// The job was there already, under the same unique key.
    pub duplicate: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    #[error("the payload of {kind} is not JSON")]
    Payload { kind: String, source: serde_json::Error },
    #[error("the payload of {kind} has {size} bytes; carry ids, not copies (at most {MAX_ARGS})")]
    TooLarge { kind: String, size: usize },
    #[error("the key {key:?} changes hands too fast to tell which job holds it")]
    Contended { key: String },
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl streamspace_common::Classified for EnqueueError {
    fn kind(&self) -> streamspace_common::ErrorKind {
        match self {
            Self::Db(error) => error.kind(),
            Self::Contended { .. } => streamspace_common::ErrorKind::Conflict,
            Self::Payload { .. } | Self::TooLarge { .. } => streamspace_common::ErrorKind::Internal,
        }
    }
}

const MAX_ARGS: usize = 64 * 1024;
/// Rows of one statement.
const CHUNK: usize = 500;

/// One job, with its kind's defaults.
pub async fn enqueue<J: Job>(tx: &mut Tx, job: J) -> Result<Enqueued, EnqueueError> {
    enqueue_with(tx, job, Options::default()).await
}

pub async fn enqueue_with<J: Job>(tx: &mut Tx, job: J, options: Options) -> Result<Enqueued, EnqueueError> {
    let prepared = Prepared::of(tx, &job)?;
    enqueue_prepared(tx, &Policy::of::<J>(), prepared, &options).await
}

/// Many jobs of one kind, in statements of 500. Kinds with a unique key go one by one.
pub async fn enqueue_many<J: Job>(
    tx: &mut Tx,
    jobs: impl IntoIterator<Item = J>,
    options: &Options,
) -> Result<Vec<JobId>, EnqueueError> {
    let policy = Policy::of::<J>();
    let mut ids = Vec::new();
    let mut batch = Vec::with_capacity(CHUNK);
    for job in jobs {
        let prepared = Prepared::of(tx, &job)?;
        if prepared.unique.is_some() {
            ids.push(enqueue_prepared(tx, &policy, prepared, options).await?.id);
            continue;
        }
        ids.push(prepared.id);
        batch.push(prepared);
        if batch.len() == CHUNK {
            insert(tx, &policy, std::mem::take(&mut batch), options).await?;
        }
    }
    if !batch.is_empty() {
        insert(tx, &policy, batch, options).await?;
    }
    Ok(ids)
}

/// What a kind says of all its jobs.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub kind: &'static str,
    pub queue: &'static str,
    pub version: i16,
    pub timeout: Duration,
    pub attempts: i32,
}

impl Policy {
    pub(crate) fn of<J: Job>() -> Self {
        Self {
            kind: J::KIND,
            queue: J::QUEUE,
            version: J::VERSION,
            timeout: J::TIMEOUT,
            attempts: J::ATTEMPTS,
        }
    }
}

/// What one job says of itself.
pub(crate) struct Prepared {
    id: JobId,
    /// As it is stored: written once.
    args: Json<Box<RawValue>>,
    /// Key and limit, both joined: a row has few, most have none.
    slots: Option<(String, String)>,
    unique: Option<Unique>,
}

const SEPARATOR: &str = "\u{1f}";

impl Prepared {
    fn of<J: Job>(tx: &Tx, job: &J) -> Result<Self, EnqueueError> {
        let args =
            to_raw_value(job).map_err(|source| EnqueueError::Payload { kind: J::KIND.to_owned(), source })?;
        Self::new(J::KIND, tx.tenant(), args, job.slots(), job.unique())
    }

    pub(crate) fn new(
        kind: &str,
        tenant: TenantId,
        args: Box<RawValue>,
        slots: Vec<Slot>,
        unique: Option<Unique>,
    ) -> Result<Self, EnqueueError> {
        let size = args.get().len();
        if size > MAX_ARGS {
            return Err(EnqueueError::TooLarge { kind: kind.to_owned(), size });
        }
        let slots = (!slots.is_empty()).then(|| {
            let keys: Vec<_> = slots.iter().map(|slot| key_of(tenant, slot)).collect();
            let limits: Vec<_> = slots.iter().map(|slot| slot.limit.to_string()).collect();
            (keys.join(SEPARATOR), limits.join(SEPARATOR))
        });
        Ok(Self { id: JobId::new(), args: Json(args), slots, unique })
    }
}

/// Keys of tenants can't meet: each carries its tenant.
fn key_of(tenant: TenantId, slot: &Slot) -> String {
    let key = slot.key.replace(SEPARATOR, " ");
    if slot.everywhere { format!("*/{key}") } else { format!("{}/{key}", tenant.0.simple()) }
}

pub(crate) async fn enqueue_prepared(
    tx: &mut Tx,
    policy: &Policy,
    prepared: Prepared,
    options: &Options,
) -> Result<Enqueued, EnqueueError> {
    let id = prepared.id;
    if let Some(unique) = &prepared.unique
        && let Some(holder) = take_unique_key(tx, policy.kind, unique, id).await?
    {
        return Ok(Enqueued { id: holder, duplicate: true });
    }
    insert(tx, policy, vec![prepared], options).await?;
    Ok(Enqueued { id, duplicate: false })
}

/// Takes the key for `id`, or tells who holds it. The primary key decides races: a second taker
/// waits for the first one's commit. A key outlives what it protects until somebody takes it or the
/// holder's end deletes it, so its holder is asked.
///
/// A job that waits is kept from starting until this transaction ends: what it will read must
/// include what was written before the duplicate was refused.
async fn take_unique_key(
    tx: &mut Tx,
    kind: &str,
    unique: &Unique,
    id: JobId,
) -> Result<Option<JobId>, EnqueueError> {
    let tenant = tx.tenant();
    let ttl = unique.ttl.map(|ttl| ttl.as_millis() as i64);
    for _ in 0..8 {
        let conn = tx.conn().await?;
        let inserted = sqlx::query!(
            "insert into job_keys (tenant_id, kind, key, job_id, until)
             values ($1, $2, $3, $4, queue.now() + $5::bigint * interval '1 ms')
             on conflict (tenant_id, kind, key) do nothing",
            tenant.0,
            kind,
            unique.key,
            id.0,
            ttl,
        )
        .execute(&mut *conn)
        .await?;
        if inserted.rows_affected() > 0 {
            return Ok(None);
        }
        let key = sqlx::query!(
            r#"select k.job_id as "holder: JobId", coalesce(k.until <= queue.now(), false) as "expired!",
                      j.state in ('succeeded', 'failed', 'cancelled') as "over?"
               from job_keys k left join jobs j on j.id = k.job_id
               where k.tenant_id = $1 and k.kind = $2 and k.key = $3"#,
            tenant.0,
            kind,
            unique.key,
        )
        .fetch_optional(&mut *conn)
        .await?;
        // Released between the two statements: try to take it again.
        let Some(key) = key else { continue };
        let holds = !key.expired
            && match unique.while_ {
                UniqueWhile::Waiting => wait_with(tx, key.holder).await?,
                UniqueWhile::Unfinished => key.over == Some(false),
                UniqueWhile::Kept => true,
            };
        if holds {
            return Ok(Some(key.holder));
        }
        let inherited = sqlx::query!(
            "update job_keys set job_id = $4, until = queue.now() + $5::bigint * interval '1 ms'
             where tenant_id = $1 and kind = $2 and key = $3 and job_id = $6",
            tenant.0,
            kind,
            unique.key,
            id.0,
            ttl,
            key.holder.0,
        )
        .execute(tx.conn().await?)
        .await?;
        if inherited.rows_affected() > 0 {
            return Ok(None);
        }
    }
    Err(EnqueueError::Contended { key: unique.key.clone() })
}

/// Whether the job waits to be claimed, and then keeps it waiting until the end of the transaction.
///
/// By then claims, promotions and freed slots have passed it by, whatever it waited for: all are told to
/// look again.
async fn wait_with(tx: &mut Tx, holder: JobId) -> sqlx::Result<bool> {
    let waits = sqlx::query!(
        r#"select tenant_id as "tenant: TenantId", lane, order_at, run_at, blocked_on from jobs
           where id = $1 and state not in ('running', 'succeeded', 'failed', 'cancelled') for key share"#,
        holder.0,
    )
    .fetch_optional(tx.conn().await?)
    .await?;
    let Some(job) = waits else { return Ok(false) };
    let notices = tx.notices();
    notices.claimable(Lane { name: job.lane, tenant: job.tenant }, job.order_at.to_jiff());
    notices.due(job.run_at.to_jiff());
    notices.unblock.extend(job.blocked_on);
    Ok(true)
}
