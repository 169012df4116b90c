//! What operators do to schedules. Everything about one is checked when it is saved, so that it does
//! not fail at its first tick, at night.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use streamspace_common::{PLATFORM, ScheduleId, TenantId};

use super::{
    CatchUp, Overlap, Schedule, ScheduleError, Schedules, Timing, When, fire, jittered,
    store::{self, to_ms},
};
use crate::{
    enqueue::{EnqueueError, Enqueued},
    outcome::chain,
    tx::Tx,
};

/// A schedule as its maker wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct SaveSchedule {
    pub name: String,
    pub kind: String,
    pub args: Value,
    pub cron: String,
    pub time_zone: String,
    pub jitter: Duration,
    pub catch_up: CatchUp,
    pub catch_up_window: Duration,
    pub overlap: Overlap,
    pub paused: bool,
}

const LONGEST_JITTER: Duration = Duration::from_secs(24 * 3600);
const LONGEST_WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);
const MOST_PREVIEWED: usize = 100;

impl SaveSchedule {
    fn check(&self, schedules: &Schedules, tenant: TenantId, now: Timestamp) -> Result<Next, ScheduleError> {
        let length = self.name.chars().count();
        if !(1..=200).contains(&length) || self.name.contains('\0') {
            return Err(ScheduleError::invalid("/name", "a name has 1 to 200 characters"));
        }
        if self.jitter > LONGEST_JITTER {
            return Err(ScheduleError::invalid("/jitter", "at most 24 h"));
        }
        if self.catch_up_window > LONGEST_WINDOW {
            return Err(ScheduleError::invalid("/catchUpWindow", "at most 7 d"));
        }
        let kinds: Vec<_> = schedules.registry.schedulable().map(|(kind, _)| kind).collect();
        if !kinds.contains(&self.kind.as_str()) {
            let detail = format!("no kind {:?} can be scheduled; there are {}", self.kind, kinds.join(", "));
            return Err(ScheduleError::invalid("/kind", detail));
        }
        self.check_names(schedules)?;
        schedules
            .registry
            .check(&self.kind, tenant, &self.args)
            .map_err(|detail| ScheduleError::invalid("/arguments", detail))?;
        let tick = timing(&When::Cron(self.cron.clone()), &self.time_zone)?
            .next(now)
            .ok_or_else(|| ScheduleError::invalid("/cron", super::TimingError::Never))?;
        Ok(Next::of(tick, self.jitter, self.paused))
    }
}

impl SaveSchedule {
    /// A payload may have fields that only its kind writes, and a misspelt one would be ignored.
    fn check_names(&self, schedules: &Schedules) -> Result<(), ScheduleError> {
        let schema = schedules.registry.schedulable().find(|(kind, _)| *kind == self.kind);
        let Some(known) = schema.as_ref().and_then(|(_, schema)| schema["properties"].as_object()) else {
            return Ok(());
        };
        let unknown =
            self.args.as_object().and_then(|args| args.keys().find(|name| !known.contains_key(*name)));
        match unknown {
            Some(name) => {
                let names: Vec<_> = known.keys().map(String::as_str).collect();
                let detail =
                    format!("{} has no argument {name:?}; there are {}", self.kind, names.join(", "));
                Err(ScheduleError::invalid("/arguments", detail))
            }
            None => Ok(()),
        }
    }
}

fn timing(when: &When, zone: &str) -> Result<Timing, ScheduleError> {
    Timing::new(when, zone).map_err(|error| {
        let pointer = if matches!(error, super::TimingError::Zone(_)) { "/timeZone" } else { "/cron" };
        ScheduleError::invalid(pointer, error)
    })
}

/// The columns that say when it fires; both null while it is paused.
struct Next {
    tick: Option<jiff_sqlx::Timestamp>,
    fire: Option<jiff_sqlx::Timestamp>,
}

impl Next {
    fn of(tick: Timestamp, jitter: Duration, paused: bool) -> Self {
        if paused {
            return Self { tick: None, fire: None };
        }
        Self { tick: Some(tick.into()), fire: Some(jittered(tick, jitter).into()) }
    }

    /// Tells the schedulers, which sleep until the next fire that they know of.
    fn tell(&self, tx: &mut Tx) {
        if let Some(fire) = self.fire {
            tx.notices().due(fire.to_jiff());
        }
    }
}

/// Makes a schedule of the transaction's tenant; its jobs have the rights of who makes it.
pub async fn create(
    tx: &mut Tx,
    schedules: &Schedules,
    new: SaveSchedule,
) -> Result<Schedule, ScheduleError> {
    let tenant = tx.tenant();
    let next = new.check(schedules, tenant, tx.now().await?)?;
    write(tx, tenant, ScheduleId::new(), new, next).await
}

/// Replaces a schedule's definition; its next fire is computed anew. Without a tenant, any tenant's.
pub async fn update(
    tx: &mut Tx,
    schedules: &Schedules,
    tenant: Option<TenantId>,
    id: ScheduleId,
    new: SaveSchedule,
) -> Result<Schedule, ScheduleError> {
    let before = lock_own(tx, tenant, id).await?;
    let next = new.check(schedules, before.tenant, tx.now().await?)?;
    write(tx, before.tenant, id, new, next).await
}

/// A new schedule, or the new definition of one that is there. Its jobs have the rights of whoever
/// said last what they do; what somebody of another tenant said, they do with the rights they had.
async fn write(
    tx: &mut Tx,
    tenant: TenantId,
    id: ScheduleId,
    new: SaveSchedule,
    next: Next,
) -> Result<Schedule, ScheduleError> {
    let (user, key, at_home) = (tx.actor().user, tx.actor().key, tx.tenant() == tenant);
    let (creator_type, creator_id) = tx.actor().by.columns();
    sqlx::query!(
        "insert into schedules as s (id, tenant_id, name, kind, args, cron, time_zone, jitter_ms, catch_up, catch_up_ms,
                                     overlap, paused, next_at, fire_at, user_id, key_id, creator_type, creator_id,
                                     created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $18, $16, $17, queue.now(), queue.now())
         on conflict (id) do update set
           name = excluded.name, kind = excluded.kind, args = excluded.args, cron = excluded.cron,
           time_zone = excluded.time_zone, jitter_ms = excluded.jitter_ms, catch_up = excluded.catch_up,
           catch_up_ms = excluded.catch_up_ms, overlap = excluded.overlap, paused = excluded.paused,
           next_at = excluded.next_at, fire_at = excluded.fire_at,
           user_id = case when $19 then excluded.user_id else s.user_id end,
           key_id = case when $19 then excluded.key_id else s.key_id end,
           creator_type = case when $19 then excluded.creator_type else s.creator_type end,
           creator_id = case when $19 then excluded.creator_id else s.creator_id end,
           row_version = s.row_version + 1, updated_at = excluded.updated_at",
        id.0,
        tenant.0,
        new.name,
        new.kind,
        new.args,
        new.cron,
        new.time_zone,
        to_ms(new.jitter),
        new.catch_up.as_str(),
        to_ms(new.catch_up_window),
        new.overlap.as_str(),
        new.paused,
        next.tick as Option<jiff_sqlx::Timestamp>,
        next.fire as Option<jiff_sqlx::Timestamp>,
        user.map(|user| user.0),
        creator_type,
        creator_id,
        key.map(|key| key.0),
        at_home,
    )
    .execute(tx.conn().await?)
    .await
    .map_err(name_taken)?;
    next.tell(tx);
    store::get(tx.conn().await?, Some(tenant), id).await?.ok_or(ScheduleError::NotFound)
}

/// Deletes a schedule. Jobs that it made go on; its ledger goes with its month.
pub async fn delete(
    tx: &mut Tx,
    tenant: Option<TenantId>,
    id: ScheduleId,
) -> Result<Schedule, ScheduleError> {
    let before = lock_own(tx, tenant, id).await?;
    sqlx::query!("delete from schedules where id = $1", id.0).execute(tx.conn().await?).await?;
    Ok(before)
}

/// Ticks of a paused schedule pass unseen; they are not missed.
pub async fn pause(tx: &mut Tx, tenant: Option<TenantId>, id: ScheduleId) -> Result<Schedule, ScheduleError> {
    let before = lock_any(tx, tenant, id).await?;
    sqlx::query!(
        "update schedules set paused = true, next_at = null, fire_at = null, row_version = row_version + 1,
                updated_at = queue.now()
         where id = $1 and not paused",
        id.0,
    )
    .execute(tx.conn().await?)
    .await?;
    store::get(tx.conn().await?, Some(before.tenant), id).await?.ok_or(ScheduleError::NotFound)
}

pub async fn resume(
    tx: &mut Tx,
    tenant: Option<TenantId>,
    id: ScheduleId,
) -> Result<Schedule, ScheduleError> {
    let before = lock_any(tx, tenant, id).await?;
    if before.paused {
        let now = tx.now().await?;
        let tick = timing(&before.when, &before.time_zone)?.next(now);
        let next = tick.map(|tick| Next::of(tick, before.jitter, false));
        sqlx::query!(
            "update schedules set paused = false, next_at = $2, fire_at = $3, row_version = row_version + 1,
                    updated_at = queue.now()
             where id = $1",
            id.0,
            next.as_ref().and_then(|next| next.tick) as Option<jiff_sqlx::Timestamp>,
            next.as_ref().and_then(|next| next.fire) as Option<jiff_sqlx::Timestamp>,
        )
        .execute(tx.conn().await?)
        .await?;
        if let Some(next) = next {
            next.tell(tx);
        }
    }
    store::get(tx.conn().await?, Some(before.tenant), id).await?.ok_or(ScheduleError::NotFound)
}

/// Enqueues its job now, whatever its times say. For a built-in one of every tenant, one for each;
/// the last of them is the answer.
pub async fn run_now(
    tx: &mut Tx,
    schedules: &Schedules,
    tenant: Option<TenantId>,
    id: ScheduleId,
) -> Result<Enqueued, ScheduleError> {
    let schedule = lock_any(tx, tenant, id).await?;
    let now = tx.now().await?;
    fire::manually(tx, schedules, &schedule, now)
        .await
        .map_err(|error| match error {
            ScheduleError::Enqueue(
                error @ (EnqueueError::Payload { .. } | EnqueueError::TooLarge { .. }),
            ) => ScheduleError::invalid("/arguments", chain(&error)),
            error => error,
        })?
        .ok_or_else(|| ScheduleError::invalid("/kind", format!("no kind {:?} is known here", schedule.kind)))
}

/// Times at which something would fire.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    pub cron: String,
    pub time_zone: String,
    pub count: usize,
}

/// The next times of a rule that need not be saved.
pub fn preview(preview: &Preview, after: Timestamp) -> Result<Vec<Timestamp>, ScheduleError> {
    if !(1..=MOST_PREVIEWED).contains(&preview.count) {
        return Err(ScheduleError::invalid("/count", format!("1 to {MOST_PREVIEWED}")));
    }
    timing(&When::Cron(preview.cron.clone()), &preview.time_zone)?
        .preview(after, preview.count)
        .map_err(|error| ScheduleError::invalid("/cron", error))
}

async fn lock_any(tx: &mut Tx, tenant: Option<TenantId>, id: ScheduleId) -> Result<Schedule, ScheduleError> {
    let schedule = store::lock(tx.conn().await?, tenant, id).await?.ok_or(ScheduleError::NotFound)?;
    // Shown to all tenants, touched by the platform's administrators only: they come without one.
    if schedule.built_in && tenant.is_some_and(|tenant| tenant != PLATFORM) {
        return Err(ScheduleError::BuiltIn);
    }
    Ok(schedule)
}

async fn lock_own(tx: &mut Tx, tenant: Option<TenantId>, id: ScheduleId) -> Result<Schedule, ScheduleError> {
    let schedule = lock_any(tx, tenant, id).await?;
    if schedule.built_in { Err(ScheduleError::BuiltIn) } else { Ok(schedule) }
}

fn name_taken(error: sqlx::Error) -> ScheduleError {
    match error.as_database_error().and_then(|error| error.constraint()) {
        Some("schedules_name_per_tenant") => ScheduleError::NameTaken,
        _ => ScheduleError::Db(error),
    }
}
