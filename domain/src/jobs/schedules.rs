//! Schedules. Those that operators make belong to their tenant and run with their maker's rights;
//! built-in ones belong to the platform and are shown to all operators.

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::PgConnection;
use streamspace_common::{Actor, Role, ScheduleId, TenantId, UserId};
use streamspace_queue::{Enqueued, Tx, schedule};

pub use streamspace_queue::schedule::{
    CatchUp, Fire, Overlap, Preview, SaveSchedule, Schedule, Schedules, When,
};

use super::Error;
use crate::{
    audit::{self, Entry},
    identity::{Permission, Require},
};

/// Whose schedules somebody reaches; all of them without one.
fn reach(actor: &Actor) -> Option<TenantId> {
    (!actor.platform).then_some(actor.tenant)
}

/// The jobs of built-in schedules are all tenants', so that only the platform's administrators see
/// which they were.
fn hides_jobs(actor: &Actor, schedule: &Schedule) -> bool {
    schedule.built_in && !actor.platform
}

fn as_seen_by(actor: &Actor, mut schedule: Schedule) -> Schedule {
    if hides_jobs(actor, &schedule) {
        schedule.last_job = None;
    }
    schedule
}

/// A page, newest first, after the cursor; the tenant's and the built-in ones.
pub async fn list(
    conn: &mut PgConnection,
    actor: &Actor,
    after: Option<ScheduleId>,
    limit: u32,
) -> Result<Vec<Schedule>, Error> {
    actor.require(Permission::SchedulesRead)?;
    let page = schedule::list(conn, reach(actor), after, limit).await?;
    Ok(page.into_iter().map(|schedule| as_seen_by(actor, schedule)).collect())
}

pub async fn get(conn: &mut PgConnection, actor: &Actor, id: ScheduleId) -> Result<Schedule, Error> {
    actor.require(Permission::SchedulesRead)?;
    let schedule = schedule::get(conn, reach(actor), id).await?.ok_or(Error::NoSchedule)?;
    Ok(as_seen_by(actor, schedule))
}

/// Its ledger, newest first, before a tick.
pub async fn fires(
    conn: &mut PgConnection,
    actor: &Actor,
    id: ScheduleId,
    before: Option<Timestamp>,
    limit: u32,
) -> Result<Vec<Fire>, Error> {
    let schedule = get(conn, actor, id).await?;
    let mut fires = schedule::fires(conn, id, before, limit).await?;
    if hides_jobs(actor, &schedule) {
        fires.iter_mut().for_each(|fire| fire.job = None);
    }
    Ok(fires)
}

/// The next times of a rule, saved or not.
pub fn preview(actor: &Actor, preview: &Preview, after: Timestamp) -> Result<Vec<Timestamp>, Error> {
    actor.require(Permission::SchedulesWrite)?;
    Ok(schedule::preview(preview, after)?)
}

pub async fn create(tx: &mut Tx, schedules: &Schedules, new: SaveSchedule) -> Result<Schedule, Error> {
    tx.require(Permission::SchedulesWrite)?;
    let schedule = schedule::create(tx, schedules, new).await?;
    record(tx, "schedules.create", None, Some(&schedule)).await?;
    Ok(schedule)
}

pub async fn update(
    tx: &mut Tx,
    schedules: &Schedules,
    id: ScheduleId,
    new: SaveSchedule,
) -> Result<Schedule, Error> {
    let before = get_for_change(tx, id).await?;
    let reach = reach(tx.actor());
    let after = schedule::update(tx, schedules, reach, id, new).await?;
    record(tx, "schedules.update", Some(&before), Some(&after)).await?;
    Ok(after)
}

pub async fn delete(tx: &mut Tx, id: ScheduleId) -> Result<(), Error> {
    let before = get_for_change(tx, id).await?;
    let reach = reach(tx.actor());
    schedule::delete(tx, reach, id).await?;
    record(tx, "schedules.delete", Some(&before), None).await
}

pub async fn pause(tx: &mut Tx, id: ScheduleId) -> Result<Schedule, Error> {
    let before = get_for_change(tx, id).await?;
    let reach = reach(tx.actor());
    let after = schedule::pause(tx, reach, id).await?;
    record(tx, "schedules.pause", Some(&before), Some(&after)).await?;
    Ok(after)
}

pub async fn resume(tx: &mut Tx, id: ScheduleId) -> Result<Schedule, Error> {
    let before = get_for_change(tx, id).await?;
    let reach = reach(tx.actor());
    let after = schedule::resume(tx, reach, id).await?;
    record(tx, "schedules.resume", Some(&before), Some(&after)).await?;
    Ok(after)
}

/// Enqueues its job now.
pub async fn run_now(tx: &mut Tx, schedules: &Schedules, id: ScheduleId) -> Result<Enqueued, Error> {
    let schedule = get_for_change(tx, id).await?;
    let reach = reach(tx.actor());
    let job = schedule::run_now(tx, schedules, reach, id).await?;
    let entry = Entry::new("schedules.run", "schedule", id).after(json!({ "job": job.id }));
    audit::record_in(tx, schedule.tenant, entry).await?;
    Ok(job)
}

async fn get_for_change(tx: &mut Tx, id: ScheduleId) -> Result<Schedule, Error> {
    let actor = tx.actor().clone();
    let schedule = get(tx.conn().await?, &actor, id).await?;
    tx.require(Permission::SchedulesWrite)?;
    Ok(schedule)
}

async fn record(
    tx: &mut Tx,
    action: &'static str,
    before: Option<&Schedule>,
    after: Option<&Schedule>,
) -> Result<(), Error> {
    let Some(schedule) = before.or(after) else { return Ok(()) };
    let entry = Entry {
        before: before.map(shown),
        after: after.map(shown),
        ..Entry::new(action, "schedule", schedule.id)
    };
    Ok(audit::record_in(tx, schedule.tenant, entry).await?)
}

fn shown(schedule: &Schedule) -> Value {
    json!({
        "name": schedule.name,
        "kind": schedule.kind,
        "args": schedule.args,
        "when": schedule.when,
        "timeZone": schedule.time_zone,
        "paused": schedule.paused,
    })
}

/// Somebody's schedules when they leave: the heir's from now on, or gone. Answers how many there were.
///
/// Their jobs then have the heir's rights. Where those are more than its maker had, a schedule could do
/// what its maker never might; where the heir may keep none, nobody could mend it. So it stands still
/// until somebody who looked at it resumes it.
pub(crate) async fn leave(
    tx: &mut Tx,
    (user, role): (UserId, Role),
    heir: Option<(UserId, Role)>,
) -> Result<usize, Error> {
    let tenant = tx.tenant();
    let Some((heir, heirs)) = heir else {
        let gone = schedule::delete_of(tx, tenant, user).await?;
        for (id, name) in &gone {
            audit::record(tx, Entry::new("schedules.delete", "schedule", id).before(json!({ "name": name })))
                .await?;
        }
        return Ok(gone.len());
    };
    let paused = heirs > role || heirs < Role::Operator;
    let handed = schedule::hand_over(tx, tenant, user, heir, paused).await?;
    for schedule in &handed {
        let entry = Entry::new("schedules.hand_over", "schedule", schedule.id)
            .before(json!({ "user": user }))
            .after(json!({ "name": schedule.name, "user": heir, "paused": schedule.paused }));
        audit::record(tx, entry).await?;
    }
    Ok(handed.len())
}
