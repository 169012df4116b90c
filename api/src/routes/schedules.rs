use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use streamspace_common::ScheduleId;
use streamspace_domain::jobs::schedules::{self, SaveSchedule};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Paging, accepted};
use crate::{
    caller::Caller,
    extract::{ApiTx, Faults, Id, Query, Valid, Validate},
    page::{Linked, List, Page},
    problem::ApiError,
    state::Api,
    view::{CatchUp, Fire, Overlap, Schedule, parse_span},
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_schedules, create_schedule))
        .routes(routes!(preview_schedule))
        .routes(routes!(get_schedule, update_schedule, delete_schedule))
        .routes(routes!(run_schedule))
        .routes(routes!(pause_schedule))
        .routes(routes!(resume_schedule))
        .routes(routes!(list_fires))
}

/// A schedule as its maker writes it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ScheduleBody {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// A kind that can be scheduled.
    #[schema(min_length = 1, max_length = 100)]
    kind: String,
    /// Five fields: minute, hour, day of the month, month, day of the week.
    #[schema(example = "30 4 * * *", max_length = 200)]
    cron: String,
    #[serde(default = "utc")]
    #[schema(example = "Europe/Berlin", default = "UTC", max_length = 100)]
    time_zone: String,
    /// Each fire is late by a random part of this.
    #[serde(default = "none")]
    #[schema(example = "30s", default = "0s")]
    jitter: String,
    #[serde(default)]
    catch_up: CatchUp,
    #[serde(default = "day")]
    #[schema(example = "1d", default = "1d")]
    catch_up_window: String,
    #[serde(default)]
    overlap: Overlap,
    /// What its jobs are given.
    #[serde(default = "empty")]
    arguments: Value,
    #[serde(default)]
    paused: bool,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn none() -> String {
    "0s".to_owned()
}

fn day() -> String {
    "1d".to_owned()
}

fn empty() -> Value {
    Value::Object(Map::new())
}

impl Validate for ScheduleBody {
    fn validate(&self, faults: &mut Faults) {
        faults.text("/name", &self.name, 200);
        faults.text("/kind", &self.kind, 100);
        faults.text("/cron", &self.cron, 200);
        faults.text("/timeZone", &self.time_zone, 100);
        for (pointer, text) in [("/jitter", &self.jitter), ("/catchUpWindow", &self.catch_up_window)] {
            if parse_span(text).is_none() {
                faults.add(pointer, "not a span of time such as 90s, 1h 30m or 7d");
            }
        }
    }
}

impl From<ScheduleBody> for SaveSchedule {
    fn from(body: ScheduleBody) -> Self {
        Self {
            jitter: parse_span(&body.jitter).unwrap_or_default(),
            catch_up_window: parse_span(&body.catch_up_window).unwrap_or_default(),
            name: body.name,
            kind: body.kind,
            args: body.arguments,
            cron: body.cron,
            time_zone: body.time_zone,
            catch_up: body.catch_up.into(),
            overlap: body.overlap.into(),
            paused: body.paused,
        }
    }
}

/// The tenant's schedules and the built-in ones, newest first
#[utoipa::path(get, path = "/api/v1/schedules", tag = "jobs", params(Paging), responses((status = 200, body = Page<Schedule>)))]
async fn list_schedules(
    State(api): State<Api>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Linked<Schedule>, ApiError> {
    let list = List::new("/api/v1/schedules");
    let after: Option<ScheduleId> = list.begin(paging.cursor.as_deref())?;
    let limit = paging.limit();
    let found = schedules::list(&mut *api.queue.read().await?, caller.actor(), after, limit + 1).await?;
    Ok(list.page_of(found.into_iter().map(Schedule::from).collect(), limit, |schedule| schedule.id))
}

/// Makes a schedule
///
/// Its jobs run with the rights of who makes it. Everything about it is checked now.
#[utoipa::path(
    post, path = "/api/v1/schedules", tag = "jobs", request_body = ScheduleBody,
    responses((status = 201, body = Schedule, headers(("Location" = String, description = "Of the schedule"))))
)]
async fn create_schedule(
    State(api): State<Api>,
    mut tx: ApiTx,
    Valid(body): Valid<ScheduleBody>,
) -> Result<Response, ApiError> {
    let made = schedules::create(&mut tx, &api.schedules, body.into()).await?;
    let location = format!("/api/v1/schedules/{}", made.id);
    tx.commit((StatusCode::CREATED, [(header::LOCATION, location)], Json(Schedule::from(made)))).await
}

/// One schedule
#[utoipa::path(get, path = "/api/v1/schedules/{id}", tag = "jobs", params(("id" = Uuid, Path)), responses((status = 200, body = Schedule)))]
async fn get_schedule(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ScheduleId>,
) -> Result<Json<Schedule>, ApiError> {
    let schedule = schedules::get(&mut *api.queue.read().await?, caller.actor(), id).await?;
    Ok(Json(schedule.into()))
}

/// Replaces a schedule; its next fire is computed anew
#[utoipa::path(put, path = "/api/v1/schedules/{id}", tag = "jobs", params(("id" = Uuid, Path)), request_body = ScheduleBody, responses((status = 200, body = Schedule)))]
async fn update_schedule(
    State(api): State<Api>,
    mut tx: ApiTx,
    Id(id): Id<ScheduleId>,
    Valid(body): Valid<ScheduleBody>,
) -> Result<Response, ApiError> {
    let schedule = schedules::update(&mut tx, &api.schedules, id, body.into()).await?;
    tx.commit(Json(Schedule::from(schedule))).await
}

/// Deletes a schedule
///
/// Jobs that it made go on.
#[utoipa::path(delete, path = "/api/v1/schedules/{id}", tag = "jobs", params(("id" = Uuid, Path)), responses((status = 204, description = "It is gone")))]
async fn delete_schedule(mut tx: ApiTx, Id(id): Id<ScheduleId>) -> Result<Response, ApiError> {
    schedules::delete(&mut tx, id).await?;
    tx.commit(StatusCode::NO_CONTENT).await
}

/// The job that was enqueued.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Started {
    job_id: Uuid,
    /// It was there already, under the same unique key.
    duplicate: bool,
}

/// Enqueues its job now, whatever its times say
#[utoipa::path(
    post, path = "/api/v1/schedules/{id}/run", tag = "jobs", params(("id" = Uuid, Path)),
    responses((status = 202, body = Started, headers(("Location" = String, description = "Of the job"))))
)]
async fn run_schedule(
    State(api): State<Api>,
    mut tx: ApiTx,
    Id(id): Id<ScheduleId>,
) -> Result<Response, ApiError> {
    let job = schedules::run_now(&mut tx, &api.schedules, id).await?;
    tx.commit(accepted(job.id.0, Started { job_id: job.id.0, duplicate: job.duplicate })).await
}

/// Fires no more
#[utoipa::path(post, path = "/api/v1/schedules/{id}/pause", tag = "jobs", params(("id" = Uuid, Path)), responses((status = 200, body = Schedule)))]
async fn pause_schedule(mut tx: ApiTx, Id(id): Id<ScheduleId>) -> Result<Response, ApiError> {
    let schedule = schedules::pause(&mut tx, id).await?;
    tx.commit(Json(Schedule::from(schedule))).await
}

/// Fires again; what passed meanwhile is not caught up
#[utoipa::path(post, path = "/api/v1/schedules/{id}/resume", tag = "jobs", params(("id" = Uuid, Path)), responses((status = 200, body = Schedule)))]
async fn resume_schedule(mut tx: ApiTx, Id(id): Id<ScheduleId>) -> Result<Response, ApiError> {
    let schedule = schedules::resume(&mut tx, id).await?;
    tx.commit(Json(Schedule::from(schedule))).await
}

/// A schedule's ledger, newest first
#[utoipa::path(get, path = "/api/v1/schedules/{id}/fires", tag = "jobs", params(("id" = Uuid, Path), Paging), responses((status = 200, body = Page<Fire>)))]
async fn list_fires(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ScheduleId>,
    Query(paging): Query<Paging>,
) -> Result<Linked<Fire>, ApiError> {
    let path = format!("/api/v1/schedules/{id}/fires");
    let list = List::new(&path);
    let before: Option<Timestamp> = list.begin(paging.cursor.as_deref())?;
    let limit = paging.limit();
    let fires =
        schedules::fires(&mut *api.queue.read().await?, caller.actor(), id, before, limit + 1).await?;
    Ok(list.page_of(fires.into_iter().map(Fire::from).collect(), limit, |fire| fire.fire_at))
}

/// A rule that need not be saved.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PreviewBody {
    #[schema(example = "30 4 * * *", max_length = 200)]
    cron: String,
    #[serde(default = "utc")]
    #[schema(example = "Europe/Berlin", default = "UTC", max_length = 100)]
    time_zone: String,
    #[serde(default = "five")]
    #[schema(minimum = 1, maximum = 100, default = 5)]
    count: u32,
}

fn five() -> u32 {
    5
}

impl Validate for PreviewBody {
    fn validate(&self, faults: &mut Faults) {
        faults.text("/cron", &self.cron, 200);
        faults.text("/timeZone", &self.time_zone, 100);
        if !(1..=100).contains(&self.count) {
            faults.add("/count", "between 1 and 100");
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Times {
    times: Vec<Timestamp>,
}

/// The next times of a rule
#[utoipa::path(post, path = "/api/v1/schedules/preview", tag = "jobs", request_body = PreviewBody, responses((status = 200, body = Times)))]
async fn preview_schedule(mut tx: ApiTx, Valid(body): Valid<PreviewBody>) -> Result<Response, ApiError> {
    let rule = schedules::Preview {
        cron: body.cron,
        time_zone: body.time_zone,
        count: usize::try_from(body.count).unwrap_or(usize::MAX),
    };
    let now = tx.now().await?;
    let times = schedules::preview(tx.actor(), &rule, now)?;
    tx.commit(Json(Times { times }).into_response()).await
}
