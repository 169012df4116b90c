//! Schedules that the program brings along. They are declared in code, shown in the API, and belong
//! to the platform.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgConnection;
use streamspace_common::{PLATFORM, ScheduleId};

use super::{CatchUp, Overlap, ScheduleError, Timing, When, store::to_ms};
use crate::job::Job;

#[derive(Clone, Debug)]
pub struct BuiltIn {
    pub name: &'static str,
    pub kind: &'static str,
    pub args: Value,
    pub when: When,
    /// The kind is one per tenant: each tick enqueues one job for each. Such a kind has a unique key,
    /// so that no tenant gets a second while the first is not over.
    pub per_tenant: bool,
    /// It fires when a scheduler starts, too.
    pub at_start: bool,
    pub catch_up: CatchUp,
    pub overlap: Overlap,
}

impl BuiltIn {
    /// In UTC; one late fire after a standstill, none while the last job is not over.
    pub fn cron<J: Job>(name: &'static str, cron: &str) -> Self {
        Self::new::<J>(name, When::Cron(cron.to_owned()), CatchUp::One)
    }

    /// What has not happened for an interval is soon done again, so nothing is caught up.
    pub fn every<J: Job>(name: &'static str, every: Duration) -> Self {
        Self::new::<J>(name, When::Every(every), CatchUp::Skip)
    }

    fn new<J: Job>(name: &'static str, when: When, catch_up: CatchUp) -> Self {
        Self {
            name,
            kind: J::KIND,
            args: json!({}),
            when,
            per_tenant: false,
            at_start: false,
            catch_up,
            overlap: Overlap::Skip,
        }
    }

    #[must_use]
    pub fn for_each_tenant(self) -> Self {
        Self { per_tenant: true, ..self }
    }

    /// Once when a scheduler starts, and then at its times. When it was due meanwhile, that is once.
    #[must_use]
    pub fn at_start(self) -> Self {
        Self { at_start: true, catch_up: CatchUp::One, ..self }
    }

    #[must_use]
    pub fn with_args(self, args: Value) -> Self {
        Self { args, ..self }
    }
}

const CATCH_UP_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Stores what this release brings along. Those that are stored keep their pause, and their next
/// fire unless their rule is another now.
pub async fn declare(conn: &mut PgConnection, built_in: &[BuiltIn]) -> Result<(), ScheduleError> {
    let now = sqlx::query_scalar!(r#"select queue.now() as "now!""#).fetch_one(&mut *conn).await?.to_jiff();
    for schedule in built_in {
        let next = Timing::new(&schedule.when, "UTC")
            .map_err(|error| ScheduleError::invalid("/cron", error))?
            .next(now)
            .ok_or_else(|| ScheduleError::invalid("/cron", super::TimingError::Never))?;
        let (cron, every) = match &schedule.when {
            When::Cron(cron) => (Some(cron.as_str()), None),
            When::Every(every) => (None, Some(to_ms(*every))),
        };
        sqlx::query!(
            "insert into schedules as s (id, tenant_id, name, kind, args, cron, every_ms, catch_up, catch_up_ms, overlap,
                                         built_in, next_at, fire_at, creator_type, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, true, $11, $11, 'system', queue.now(), queue.now())
             on conflict (tenant_id, name) do update set
               kind = excluded.kind, args = excluded.args, cron = excluded.cron, every_ms = excluded.every_ms,
               catch_up = excluded.catch_up, catch_up_ms = excluded.catch_up_ms, overlap = excluded.overlap,
               next_at = case when s.paused then null
                              when (s.cron, s.every_ms) is distinct from (excluded.cron, excluded.every_ms)
                              then excluded.next_at else s.next_at end,
               fire_at = case when s.paused then null
                              when (s.cron, s.every_ms) is distinct from (excluded.cron, excluded.every_ms)
                              then excluded.fire_at else s.fire_at end,
               row_version = s.row_version + 1, updated_at = excluded.updated_at
             where (s.kind, s.args, s.cron, s.every_ms, s.catch_up, s.catch_up_ms, s.overlap) is distinct from
                   (excluded.kind, excluded.args, excluded.cron, excluded.every_ms, excluded.catch_up,
                    excluded.catch_up_ms, excluded.overlap)",
            ScheduleId::new().0,
            PLATFORM.0,
            schedule.name,
            schedule.kind,
            schedule.args,
            cron,
            every,
            schedule.catch_up.as_str(),
            to_ms(CATCH_UP_WINDOW),
            schedule.overlap.as_str(),
            jiff_sqlx::Timestamp::from(next) as jiff_sqlx::Timestamp,
        )
        .execute(&mut *conn)
        .await?;
        if schedule.at_start {
            fire_at_start(conn, schedule.name).await?;
        }
    }
    Ok(())
}

/// Not when it has just fired: schedulers that start together, or again and again, are one start.
async fn fire_at_start(conn: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "update schedules set next_at = queue.now(), fire_at = queue.now()
         where tenant_id = $1 and name = $2 and built_in and not paused and next_at > queue.now()
           and (last_fire_at is null or last_fire_at < queue.now() - interval '1 min')",
        PLATFORM.0,
        name,
    )
    .execute(conn)
    .await
    .map(drop)
}
