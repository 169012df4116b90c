//! Enqueue: rows in the caller's own transaction. Commit = visible, rollback = gone.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::value::{RawValue, to_raw_value};
use sqlx::types::Json;
use streamspace_common::{Creator, JobId, TenantId, UserId};
use uuid::Uuid;

use crate::{
    job::{Job, Slot, Unique},
    model::State,
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
/// waits for the first one's commit. The row of a holder is not locked, for its end deletes it: a
/// transaction that stays open must not hold that up.
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
        let holder = sqlx::query!(
            r#"select job_id as "id: JobId", coalesce(until <= queue.now(), false) as "expired!" from job_keys
               where tenant_id = $1 and kind = $2 and key = $3"#,
            tenant.0,
            kind,
            unique.key,
        )
        .fetch_optional(&mut *conn)
        .await?;
        // Released between the two statements: try to take it again.
        let Some(holder) = holder else { continue };
        if !holder.expired {
            return Ok(Some(holder.id));
        }
        let inherited = sqlx::query!(
            "update job_keys set job_id = $4, until = queue.now() + $5::bigint * interval '1 ms'
             where tenant_id = $1 and kind = $2 and key = $3 and until <= queue.now()",
            tenant.0,
            kind,
            unique.key,
            id.0,
            ttl,
        )
        .execute(conn)
        .await?;
        if inherited.rows_affected() > 0 {
            return Ok(None);
        }
    }
    Err(EnqueueError::Contended { key: unique.key.clone() })
}

fn sql_time(at: Timestamp) -> jiff_sqlx::Timestamp {
    at.into()
}

/// A new row, which is of version 1 and in the lane of its queue.
struct Inserted {
    id: JobId,
    state: State,
    order_at: jiff_sqlx::Timestamp,
    run_at: jiff_sqlx::Timestamp,
    blocked_on: Option<String>,
}

async fn insert(
    tx: &mut Tx,
    policy: &Policy,
    jobs: Vec<Prepared>,
    options: &Options,
) -> Result<(), EnqueueError> {
    let tenant = tx.tenant();
    let creator = options.creator.unwrap_or(tx.actor().by);
    let (creator_type, creator_id) = creator.columns();
    let user = options.user.or(tx.actor().user).map(|user| user.0);
    let request = tx.request().clone();
    let release = tx.queue().release().0;
    let queue = options.queue.as_deref().unwrap_or(policy.queue);
    let unique_mode =
        jobs.iter().find_map(|job| job.unique.as_ref()).map_or(0, |unique| unique.while_ as i16);
    let unique_key = jobs.iter().find_map(|job| job.unique.as_ref()).map(|unique| unique.key.clone());

    let ids: Vec<Uuid> = jobs.iter().map(|job| job.id.0).collect();
    let keyed = jobs.iter().any(|job| job.slots.is_some());
    let (mut slot_keys, mut slot_limits) = (Vec::new(), Vec::new());
    let mut args = Vec::with_capacity(jobs.len());
    for job in jobs {
        if keyed {
            let (keys, limits) = job.slots.unzip();
            slot_keys.push(keys);
            slot_limits.push(limits);
        }
        args.push(job.args);
    }
    let delay = options.delay.map(|delay| delay.as_millis() as i64);
    let run_at = options.run_at.map(jiff_sqlx::Timestamp::from);

    let key = tx.actor().key.map(|key| key.0);
    let single = ids.len() == 1;

    // The statements differ in where the rows come from. A plan for one row is made once and kept;
    // from an array the planner makes one anew each time, which costs as much as the insert.
    macro_rules! insert {
        ($from:tt) => {
            sqlx::query_as!(
                Inserted,
                r#"insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms, max_attempts,
                             state, version, priority, unique_mode, kind, queue, lane, unique_key,
                             slot_keys, slot_limits, blocked_on,
                             parent_id, user_id, key_id, creator_type, creator_id, request_id, traceparent, args)
           select u.id, $1, greatest(at.run_at, at.now), greatest(at.run_at, at.now) - $7::smallint * interval '1 minute',
                  at.now, $8, $9, $10,
                  (case when at.run_at > at.now then 'scheduled' when full_.key is not null then 'blocked'
                        else 'queued' end)::job_state,
                  $11, $7, $12, $13, $14, $14, $15,
                  string_to_array(u.slot_keys, E'\x1f'), string_to_array(u.slot_limits, E'\x1f')::smallint[],
                  case when at.run_at > at.now then null else full_.key end,
                  $16, $17, $24, $18, $19, $20, $21, u.args
           from (select now, coalesce($5::timestamptz, now + coalesce($6::bigint, 0) * interval '1 ms') as run_at
                 from (select queue.now() as now) n) at, "# + $from + r#"
           returning id as "id: JobId", state as "state: State", order_at, run_at, blocked_on"#,
                tenant.0,
                &ids,
                &args as &[Json<Box<RawValue>>],
                &slot_keys as &[Option<String>],
                run_at as Option<jiff_sqlx::Timestamp>,
                delay,
                options.priority.clamp(-100, 100),
                release,
                policy.timeout.as_millis() as i64,
                options.max_attempts.unwrap_or(policy.attempts).max(1),
                policy.version,
                unique_mode,
                policy.kind,
                queue,
                unique_key,
                options.parent.map(|parent| parent.0),
                user,
                creator_type,
                creator_id,
                request.id,
                request.traceparent,
                &slot_limits as &[Option<String>],
                keyed,
                key,
            )
            .fetch_all(tx.conn().await?)
            .await?
        };
    }
    let inserted = match (keyed, single) {
        (true, _) => insert!(
            "unnest($2::uuid[], $3::jsonb[], $4::text[], $22::text[]) as u(id, args, slot_keys, slot_limits)
             left join lateral (
               select s.key from unnest(string_to_array(u.slot_keys, E'\\x1f'),
                                        string_to_array(u.slot_limits, E'\\x1f')::smallint[]) as s(key, n)
               where (select count(*) from job_slots x where x.key = s.key) >= s.n
               limit 1) full_ on $23"
        ),
        // Many that need no slot have one fate, which need not be told of each.
        (false, false) => {
            let now = tx.now().await?;
            let soonest = options
                .run_at
                .unwrap_or_else(|| now.saturating_add(options.delay.unwrap_or_default()).unwrap_or(now));
            let run_at = soonest.max(now);
            let ahead = SignedDuration::from_mins(i64::from(options.priority.clamp(-100, 100)));
            let order_at = run_at.checked_sub(ahead).unwrap_or(run_at);
            let state = if run_at > now { State::Scheduled } else { State::Queued };
            sqlx::query!(
                "insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms, max_attempts,
                                   state, version, priority, unique_mode, kind, queue, lane, unique_key,
                                   parent_id, user_id, key_id, creator_type, creator_id, request_id, traceparent, args)
                 select u.id, $1, $4, $5, $6, $7, $8, $9, $10::text::job_state, $11, $12, $13, $14, $15, $15, $16,
                        $17, $18, $19, $20, $21, $22, $23, u.args
                 from unnest($2::uuid[], $3::jsonb[]) as u(id, args)",
                tenant.0,
                &ids,
                &args as &[Json<Box<RawValue>>],
                sql_time(run_at) as jiff_sqlx::Timestamp,
                sql_time(order_at) as jiff_sqlx::Timestamp,
                sql_time(now) as jiff_sqlx::Timestamp,
                release,
                policy.timeout.as_millis() as i64,
                options.max_attempts.unwrap_or(policy.attempts).max(1),
                state.as_str(),
                policy.version,
                options.priority.clamp(-100, 100),
                unique_mode,
                policy.kind,
                queue,
                unique_key,
                options.parent.map(|parent| parent.0),
                user,
                key,
                creator_type,
                creator_id,
                request.id,
                request.traceparent,
            )
            .execute(tx.conn().await?)
            .await?;
            let (order_at, run_at) = (sql_time(order_at), sql_time(run_at));
            let of = |id: &Uuid| Inserted { id: JobId(*id), state, order_at, run_at, blocked_on: None };
            ids.iter().map(of).collect()
        }
        (false, true) => insert!(
            "(select ($2::uuid[])[1] as id, ($3::jsonb[])[1] as args, ($4::text[])[1] as slot_keys,
                     ($22::text[])[1] as slot_limits) u,
             (select null::text as key) full_ where not $23"
        ),
    };

    let notices = tx.notices();
    for job in inserted {
        match (job.state, job.blocked_on) {
            (State::Blocked, Some(key)) => {
                // Its holder may have ended while this transaction was open: look after the commit.
                notices.unblock.insert(key);
            }
            (State::Queued, _) => {
                notices.claimable(Lane { name: queue.to_owned(), tenant }, job.order_at.to_jiff());
            }
            _ => notices.due(job.run_at.to_jiff()),
        }
        notices.changed(job.id, 1);
    }
    Ok(())
}
