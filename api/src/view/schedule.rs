use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use streamspace_queue::schedule;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{CreatedBy, span};

/// What enqueues a job at set times.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub name: String,
    #[schema(example = "catalog.sync_repository")]
    pub kind: String,
    pub arguments: Value,
    /// Five fields; absent for an interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "30 4 * * *")]
    pub cron: Option<String>,
    /// An interval, which only built-in ones have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "10m")]
    pub every: Option<String>,
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
    /// Each fire is late by a random part of this.
    pub jitter: String,
    pub catch_up: CatchUp,
    /// How far back missed times are caught up.
    #[schema(example = "1d")]
    pub catch_up_window: String,
    pub overlap: Overlap,
    /// Part of the program: it can be paused, resumed and run, by the platform's administrators.
    pub built_in: bool,
    pub paused: bool,
    /// Absent: paused, or never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_fire_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_fire_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_job_id: Option<Uuid>,
    pub missed_count: i64,
    pub created_by: CreatedBy,
    /// Whose rights its jobs have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Uuid>,
    pub row_version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What becomes of times at which no scheduler ran: forgotten, one job, or one for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    Skip,
    #[default]
    One,
    All,
}

/// What happens at a time when the last job still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    Allow,
    #[default]
    Skip,
}

/// A line of a schedule's ledger.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fire {
    /// The time that it was due.
    pub fire_at: Timestamp,
    /// When it was dealt with.
    pub at: Timestamp,
    pub outcome: FireOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FireOutcome {
    Fired,
    /// Its last job was not over.
    Skipped,
    /// No scheduler ran.
    Missed,
    /// Somebody ran it.
    Manual,
}

impl From<schedule::Schedule> for Schedule {
    fn from(row: schedule::Schedule) -> Self {
        let (cron, every) = match row.when {
            schedule::When::Cron(cron) => (Some(cron), None),
            schedule::When::Every(every) => (None, Some(span(every))),
        };
        Self {
            id: row.id.0,
            tenant_id: row.tenant.0,
            name: row.name,
            kind: row.kind,
            arguments: row.args,
            cron,
            every,
            time_zone: row.time_zone,
            jitter: span(row.jitter),
            catch_up: row.catch_up.into(),
            catch_up_window: span(row.catch_up_window),
            overlap: row.overlap.into(),
            built_in: row.built_in,
            paused: row.paused,
            next_fire_at: row.next_at,
            last_fire_at: row.last_fire_at,
            last_job_id: row.last_job.map(|id| id.0),
            missed_count: row.missed_count,
            created_by: row.creator.into(),
            user_id: row.user.map(|id| id.0),
            row_version: row.row_version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl From<schedule::CatchUp> for CatchUp {
    fn from(catch_up: schedule::CatchUp) -> Self {
        match catch_up {
            schedule::CatchUp::Skip => Self::Skip,
            schedule::CatchUp::One => Self::One,
            schedule::CatchUp::All => Self::All,
        }
    }
}

impl From<CatchUp> for schedule::CatchUp {
    fn from(catch_up: CatchUp) -> Self {
        match catch_up {
            CatchUp::Skip => Self::Skip,
            CatchUp::One => Self::One,
            CatchUp::All => Self::All,
        }
    }
}

impl From<schedule::Overlap> for Overlap {
    fn from(overlap: schedule::Overlap) -> Self {
        match overlap {
            schedule::Overlap::Allow => Self::Allow,
            schedule::Overlap::Skip => Self::Skip,
        }
    }
}

impl From<Overlap> for schedule::Overlap {
    fn from(overlap: Overlap) -> Self {
        match overlap {
            Overlap::Allow => Self::Allow,
            Overlap::Skip => Self::Skip,
        }
    }
}

impl From<schedule::Fire> for Fire {
    fn from(fire: schedule::Fire) -> Self {
        Self {
            fire_at: fire.fire_at,
            at: fire.at,
            outcome: match fire.outcome.as_str() {
                "skipped" => FireOutcome::Skipped,
                "missed" => FireOutcome::Missed,
                "manual" => FireOutcome::Manual,
                _ => FireOutcome::Fired,
            },
            job_id: fire.job.map(|id| id.0),
        }
    }
}
