//! Firing what is due.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::{
    Actor, ApiKeyId, Classified, Creator, ErrorKind, JobId, PLATFORM, Role, ScheduleId, TenantId, UserId,
};
use tracing::{info, warn};

use super::{
    BuiltIn, Overlap, Schedule, ScheduleError, Schedules, Timing, Troubled, jittered,
    store::read_schedules,
    timing::{self, Due},
};
use crate::{
    enqueue::{self, EnqueueError, Enqueued, Options},
    handle::Queue,
    outcome::chain,
    tx::{Request, Tx},
};

/// Schedules that one round looks at.
const ROUND: i64 = 100;

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    /// Schedules that this process moved on.
    pub schedules: usize,
    /// Until the next one is due; `None`: none is.
    pub next_in: Option<Duration>,
}

impl Schedules {
    /// Kinds, and names of built-in schedules, that this release knows. The others are left to the
    /// schedulers that know them.
    fn known(&self) -> (Vec<String>, Vec<String>) {
        let kinds = self.registry.names().map(str::to_owned).collect();
        let built_in = self.built_in.iter().map(|schedule| schedule.name.to_owned()).collect();
        (kinds, built_in)
    }

    fn is_per_tenant(&self, schedule: &Schedule) -> bool {
        let same = |built_in: &&BuiltIn| schedule.built_in && built_in.name == schedule.name;
        self.built_in.iter().find(same).is_some_and(|built_in| built_in.per_tenant)
    }
}

/// Fires every schedule that is due and that no other scheduler is firing. One that can't be fired
/// keeps its tick, is left alone for a while, and catches up by its policy when it can; so does one of a
/// suspended tenant once that goes on.
pub async fn fire_due(queue: &Queue, schedules: &Schedules, troubled: &mut Troubled) -> sqlx::Result<Fired> {
    let (kinds, built_in) = schedules.known();
    let (resting, versions) = troubled.resting(Instant::now());
    let mut conn = queue.read().await?;
    let due = sqlx::query!(
        r#"select id as "id: ScheduleId", tenant_id as "tenant: TenantId", user_id as "user: UserId", key_id as "key: ApiKeyId", name, row_version
           from schedules
           where fire_at is not null and not paused and fire_at <= queue.now()
             and case when built_in then name = any($2) else kind = any($1) end
             and tenant_id in (select id from tenants where active)
             and (id, row_version) not in (select * from unnest($4::uuid[], $5::bigint[]))
           order by fire_at limit $3"#,
        &kinds,
        &built_in,
        ROUND,
        &resting,
        &versions,
    )
    .fetch_all(&mut *conn)
    .await?;
    drop(conn);
    let mut fired = Fired::default();
    for schedule in due {
        let actor = Actor {
            tenant: schedule.tenant,
            by: Creator::Schedule(schedule.id),
            user: schedule.user,
            key: schedule.key,
            role: Role::Owner,
            platform: schedule.tenant == PLATFORM,
        };
        let tx = queue.begin(actor, Request::default());
        match fire(tx, schedules, schedule.id).await {
            Ok(true) => {
                fired.schedules += 1;
                troubled.recovered(schedule.id);
            }
            Ok(false) => {}
            // Without a database none can be fired.
            Err(ScheduleError::Db(error)) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(ScheduleError::Enqueue(EnqueueError::Db(error)))
                if error.kind() == ErrorKind::Unavailable =>
            {
                return Err(error);
            }
            // One schedule's trouble is not the others'.
            Err(error) => {
                let rest = troubled.failed(schedule.id, schedule.row_version, Instant::now());
                let (name, why) = (&schedule.name, chain(&error));
                warn!(schedule.id = %schedule.id, "{name} could not be fired; trying again in {rest:?}: {why}");
            }
        }
    }
    let (resting, versions) = troubled.resting(Instant::now());
    let mut conn = queue.read().await?;
    let next_us = sqlx::query_scalar!(
        "select (extract(epoch from min(fire_at) - queue.now()) * 1000000)::bigint from schedules
         where fire_at is not null and not paused and case when built_in then name = any($2) else kind = any($1) end
           and tenant_id in (select id from tenants where active)
           and (id, row_version) not in (select * from unnest($3::uuid[], $4::bigint[]))",
        &kinds,
        &built_in,
        &resting,
        &versions,
    )
    .fetch_one(&mut *conn)
    .await?;
    let next_in = next_us.map(|us| Duration::from_micros(u64::try_from(us).unwrap_or(0)));
    fired.next_in = next_in.into_iter().chain(troubled.next_in(Instant::now())).min();
    Ok(fired)
}

/// Fires one schedule, unless somebody else does or just did.
async fn fire(mut tx: Tx, schedules: &Schedules, id: ScheduleId) -> Result<bool, ScheduleError> {
    let conn = tx.conn().await?;
    let locked = sqlx::query!(
        "select next_at, fire_at, queue.now() as now from schedules
         where id = $1 and fire_at <= queue.now() and not paused for update skip locked",
        id.0,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(locked) = locked else { return Ok(false) };
    let (Some(first), Some(fire_at), Some(now)) = (locked.next_at, locked.fire_at, locked.now) else {
        return Ok(false);
    };
    let (first, fire_at, now) = (first.to_jiff(), fire_at.to_jiff(), now.to_jiff());
    let schedule: Schedule = read_schedules!("id = $1", id.0).fetch_one(conn).await.map(Schedule::from)?;
    let timing = Timing::new(&schedule.when, &schedule.time_zone)
        .map_err(|error| ScheduleError::invalid("/cron", error))?;
    // The jitter of the first tick holds for those that have come since.
    let until = now.checked_sub(fire_at.duration_since(first)).unwrap_or(now);
    let due = timing::due(&timing, schedule.catch_up, schedule.catch_up_window, first, until);

    let mut last_job = None;
    let mut last_is_over = !is_unfinished(tx.conn().await?, schedule.last_job).await?;
    for tick in &due.fire {
        if schedule.overlap == Overlap::Skip && !last_is_over {
            info!(schedule.id = %id, "skipped {}: its last job is not over", schedule.name);
            note(tx.conn().await?, &schedule, *tick, "skipped").await?;
            continue;
        }
        if !note(tx.conn().await?, &schedule, *tick, "fired").await? {
            continue;
        }
        match enqueue_job(&mut tx, schedules, &schedule).await? {
            Some(job) if !schedules.is_per_tenant(&schedule) => {
                set_job(tx.conn().await?, &schedule, *tick, job.id).await?;
                last_job = Some(job.id);
                last_is_over = false;
            }
            _ => {}
        }
    }
    note_missed(tx.conn().await?, &schedule, &due).await?;
    move_on(tx.conn().await?, &schedule, &due, last_job).await?;
    tx.commit().await?;
    if due.missed_count > 0 {
        warn!(schedule.id = %id, "{} missed {} ticks", schedule.name, due.missed_count);
        metrics::counter!("streamspace_cron_missed_total").increment(due.missed_count);
    }
    Ok(true)
}

/// Enqueues the job of a schedule at somebody's wish. `None`: its kind is not known here.
pub(super) async fn manually(
    tx: &mut Tx,
    schedules: &Schedules,
    schedule: &Schedule,
    now: Timestamp,
) -> Result<Option<Enqueued>, ScheduleError> {
    if !note(tx.conn().await?, schedule, now, "manual").await? {
        return Err(ScheduleError::invalid("", "a tick is being fired at this very moment; try again"));
    }
    let Some(job) = enqueue_job(tx, schedules, schedule).await? else { return Ok(None) };
    set_job(tx.conn().await?, schedule, now, job.id).await?;
    Ok(Some(job))
}

/// The last job that it enqueued: there are several for a schedule of each tenant.
async fn enqueue_job(
    tx: &mut Tx,
    schedules: &Schedules,
    schedule: &Schedule,
) -> Result<Option<Enqueued>, EnqueueError> {
    let tenants = if schedules.is_per_tenant(schedule) {
        active_tenants(tx.conn().await?).await?
    } else {
        vec![schedule.tenant]
    };
    let options =
        Options { creator: Some(Creator::Schedule(schedule.id)), user: schedule.user, ..Options::default() };
    let actor = tx.actor().clone();
    let mut last = None;
    for tenant in tenants {
        let Some(prepared) = schedules.registry.prepare(&schedule.kind, tenant, &schedule.args) else {
            return Ok(None);
        };
        let (policy, prepared) = prepared?;
        // Jobs of a schedule belong to its tenant and its maker, whoever fires it.
        tx.act_as(Actor { tenant, user: schedule.user, key: schedule.key, ..actor.clone() });
        let enqueued = enqueue::enqueue_prepared(tx, &policy, prepared, &options).await;
        tx.act_as(actor.clone());
        last = Some(enqueued?);
    }
    Ok(last)
}

async fn active_tenants(conn: &mut PgConnection) -> sqlx::Result<Vec<TenantId>> {
    sqlx::query_scalar!(
        r#"select id as "id: TenantId" from tenants where active and id <> $1 order by id"#,
        PLATFORM.0,
    )
    .fetch_all(conn)
    .await
}

async fn is_unfinished(conn: &mut PgConnection, job: Option<JobId>) -> sqlx::Result<bool> {
    let Some(job) = job else { return Ok(false) };
    sqlx::query_scalar!(
        r#"select exists (select from jobs where id = $1
                            and state not in ('succeeded', 'failed', 'cancelled')) as "unfinished!""#,
        job.0,
    )
    .fetch_one(conn)
    .await
}

/// Writes a tick into the ledger; answers whether it was not there.
async fn note(
    conn: &mut PgConnection,
    schedule: &Schedule,
    tick: Timestamp,
    outcome: &str,
) -> sqlx::Result<bool> {
    let noted = sqlx::query!(
        "insert into job_fires (schedule_id, fire_at, tenant_id, outcome, at) values ($1, $2, $3, $4, queue.now())
         on conflict do nothing",
        schedule.id.0,
        jiff_sqlx::Timestamp::from(tick) as jiff_sqlx::Timestamp,
        schedule.tenant.0,
        outcome,
    )
    .execute(conn)
    .await?;
    Ok(noted.rows_affected() == 1)
}

async fn set_job(
    conn: &mut PgConnection,
    schedule: &Schedule,
    tick: Timestamp,
    job: JobId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update job_fires set job_id = $3 where schedule_id = $1 and fire_at = $2",
        schedule.id.0,
        jiff_sqlx::Timestamp::from(tick) as jiff_sqlx::Timestamp,
        job.0,
    )
    .execute(conn)
    .await
    .map(drop)
}

/// The ledger has months for what a window can reach back to; older ticks are only counted.
async fn note_missed(conn: &mut PgConnection, schedule: &Schedule, due: &Due) -> sqlx::Result<()> {
    if due.missed.is_empty() {
        return Ok(());
    }
    let ticks: Vec<jiff_sqlx::Timestamp> = due.missed.iter().map(|tick| (*tick).into()).collect();
    sqlx::query!(
        "insert into job_fires (schedule_id, fire_at, tenant_id, outcome, at)
         select $1, tick, $2, 'missed', queue.now() from unnest($3::timestamptz[]) as t(tick)
         on conflict do nothing",
        schedule.id.0,
        schedule.tenant.0,
        &ticks as &[jiff_sqlx::Timestamp],
    )
    .execute(conn)
    .await
    .map(drop)
}

async fn move_on(
    conn: &mut PgConnection,
    schedule: &Schedule,
    due: &Due,
    last_job: Option<JobId>,
) -> sqlx::Result<()> {
    let fire = due.next.map(|next| jittered(next, schedule.jitter));
    sqlx::query!(
        "update schedules set next_at = $2, fire_at = $3, last_fire_at = coalesce($4, last_fire_at),
                last_job_id = coalesce($5, last_job_id), missed_count = missed_count + $6
         where id = $1",
        schedule.id.0,
        due.next.map(jiff_sqlx::Timestamp::from) as Option<jiff_sqlx::Timestamp>,
        fire.map(jiff_sqlx::Timestamp::from) as Option<jiff_sqlx::Timestamp>,
        due.fire.last().copied().map(jiff_sqlx::Timestamp::from) as Option<jiff_sqlx::Timestamp>,
        last_job.map(|job| job.0),
        i64::try_from(due.missed_count).unwrap_or(i64::MAX),
    )
    .execute(conn)
    .await
    .map(drop)
}
