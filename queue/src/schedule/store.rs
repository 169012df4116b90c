//! The SQL of schedules that reads and edits them; firing has its own.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use sqlx::PgConnection;
use streamspace_common::{ApiKeyId, Creator, JobId, ScheduleId, TenantId, UserId};
use uuid::Uuid;

use super::{CatchUp, Fire, Overlap, Schedule, When};

pub(super) struct Stored {
    pub(super) id: ScheduleId,
    pub(super) tenant: TenantId,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) args: Value,
    pub(super) cron: Option<String>,
    pub(super) every_ms: Option<i64>,
    pub(super) time_zone: String,
    pub(super) jitter_ms: i64,
    pub(super) catch_up: String,
    pub(super) catch_up_ms: i64,
    pub(super) overlap: String,
    pub(super) built_in: bool,
    pub(super) paused: bool,
    pub(super) next_at: Option<jiff_sqlx::Timestamp>,
    pub(super) last_fire_at: Option<jiff_sqlx::Timestamp>,
    pub(super) last_job: Option<JobId>,
    pub(super) missed_count: i64,
    pub(super) user: Option<UserId>,
    pub(super) key: Option<ApiKeyId>,
    pub(super) creator_type: String,
    pub(super) creator_id: Option<Uuid>,
    pub(super) row_version: i64,
    pub(super) created_at: jiff_sqlx::Timestamp,
    pub(super) updated_at: jiff_sqlx::Timestamp,
}

pub(super) fn ms(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

pub(super) fn to_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl From<Stored> for Schedule {
    fn from(row: Stored) -> Self {
        Self {
            id: row.id,
            tenant: row.tenant,
            name: row.name,
            kind: row.kind,
            args: row.args,
            when: match row.every_ms {
                Some(every) => When::Every(ms(every)),
                None => When::Cron(row.cron.unwrap_or_default()),
            },
            time_zone: row.time_zone,
            jitter: ms(row.jitter_ms),
            catch_up: CatchUp::from_column(&row.catch_up),
            catch_up_window: ms(row.catch_up_ms),
            overlap: Overlap::from_column(&row.overlap),
            built_in: row.built_in,
            paused: row.paused,
            next_at: row.next_at.map(|at| at.to_jiff()),
            last_fire_at: row.last_fire_at.map(|at| at.to_jiff()),
            last_job: row.last_job,
            missed_count: row.missed_count,
            user: row.user,
            key: row.key,
            creator: Creator::from_columns(&row.creator_type, row.creator_id),
            row_version: row.row_version,
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
        }
    }
}

macro_rules! read_schedules {
    ($rest:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::schedule::store::Stored,
            r#"select id as "id: _", tenant_id as "tenant: _", name, kind, args, cron, every_ms, time_zone, jitter_ms,
                      catch_up, catch_up_ms, overlap, built_in, paused, next_at, last_fire_at,
                      last_job_id as "last_job: _", missed_count, user_id as "user: _", key_id as "key: _", creator_type, creator_id,
                      row_version, created_at, updated_at
               from schedules where "# + $rest
            $(, $argument)*
        )
    };
}
pub(super) use read_schedules;

/// A schedule of a tenant, or a built-in one. Without a tenant, any.
pub async fn get(
    conn: &mut PgConnection,
    tenant: Option<TenantId>,
    id: ScheduleId,
) -> sqlx::Result<Option<Schedule>> {
    let row = read_schedules!(
        "id = $1 and ($2::uuid is null or tenant_id = $2 or built_in)",
        id.0,
        tenant.map(|tenant| tenant.0),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Schedule::from))
}

/// A page of a tenant's schedules and the built-in ones, the newest first, after the cursor.
pub async fn list(
    conn: &mut PgConnection,
    tenant: Option<TenantId>,
    after: Option<ScheduleId>,
    limit: u32,
) -> sqlx::Result<Vec<Schedule>> {
    let rows = read_schedules!(
        "($1::uuid is null or tenant_id = $1 or built_in) and ($2::uuid is null or id < $2) order by id desc limit $3",
        tenant.map(|tenant| tenant.0),
        after.map(|after| after.0),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Schedule::from).collect())
}

/// Locks a schedule for a change.
pub(super) async fn lock(
    conn: &mut PgConnection,
    tenant: Option<TenantId>,
    id: ScheduleId,
) -> sqlx::Result<Option<Schedule>> {
    let row = read_schedules!(
        "id = $1 and ($2::uuid is null or tenant_id = $2 or built_in) for update",
        id.0,
        tenant.map(|tenant| tenant.0),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Schedule::from))
}

/// The ledger of a schedule, the newest first, before the given tick.
pub async fn fires(
    conn: &mut PgConnection,
    schedule: ScheduleId,
    before: Option<Timestamp>,
    limit: u32,
) -> sqlx::Result<Vec<Fire>> {
    let rows = sqlx::query!(
        r#"select fire_at, at, outcome, job_id as "job: JobId" from job_fires
           where schedule_id = $1 and ($2::timestamptz is null or fire_at < $2) order by fire_at desc limit $3"#,
        schedule.0,
        before.map(jiff_sqlx::Timestamp::from) as Option<jiff_sqlx::Timestamp>,
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    let of = rows.into_iter().map(|row| Fire {
        fire_at: row.fire_at.to_jiff(),
        at: row.at.to_jiff(),
        outcome: row.outcome,
        job: row.job,
    });
    Ok(of.collect())
}
