use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamspace_common::JobId;
use streamspace_domain::jobs::{self, Change, Filter};
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::accepted;
use crate::{
    caller::Caller,
    extract::{ApiTx, Faults, Id, Query, Valid, Validate},
    page::{self, Linked, List, Page},
    problem::ApiError,
    state::Api,
    view::{Job, JobState, Stats, parse_span},
    watch::{Ended, Interest},
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_jobs))
        .routes(routes!(job_stats))
        .routes(routes!(retry_jobs))
        .routes(routes!(cancel_jobs))
        .routes(routes!(get_job, delete_job))
        .routes(routes!(cancel_job))
        .routes(routes!(retry_job))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
struct ListJobs {
    /// States, separated by commas; `queued` includes what waits for a concurrency key.
    #[param(example = "failed,cancelled")]
    state: Option<String>,
    kind: Option<String>,
    queue: Option<String>,
    /// Jobs of this batch.
    parent: Option<Uuid>,
    /// Jobs that this schedule made.
    schedule: Option<Uuid>,
    /// Jobs of this person.
    user: Option<Uuid>,
    /// As `user`.
    #[serde(rename = "user_id")]
    #[param(rename = "user_id")]
    user_id: Option<Uuid>,
    /// As `user`.
    #[serde(rename = "userId")]
    #[param(rename = "userId")]
    user_id_alias: Option<Uuid>,
    /// Made at this time or later.
    created_from: Option<Timestamp>,
    /// Made before this time.
    created_before: Option<Timestamp>,
    /// The one order that there is.
    #[param(example = "-createdAt")]
    sort: Option<String>,
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: the last page's `nextCursor`.
    cursor: Option<String>,
}

impl ListJobs {
    fn states(&self) -> Result<Vec<JobState>, String> {
        let of = |name: &str| {
            serde_json::from_value(name.into()).map_err(|_| format!("there is no state {name:?}"))
        };
        self.state.iter().flat_map(|states| states.split(',')).map(of).collect()
    }

    fn users(&self) -> impl Iterator<Item = Uuid> {
        [self.user, self.user_id, self.user_id_alias].into_iter().flatten()
    }

    fn filter(&self) -> Filter {
        let states = self.states().unwrap_or_default();
        Filter {
            states: states.into_iter().map(Into::into).collect(),
            kind: self.kind.clone(),
            queue: self.queue.clone(),
            parent: self.parent.map(Into::into),
            schedule: self.schedule.map(Into::into),
            user: self.users().next().map(Into::into),
            created_from: self.created_from,
            created_before: self.created_before,
            ..Filter::default()
        }
    }
}

impl Validate for ListJobs {
    fn validate(&self, faults: &mut Faults) {
        page::check(self.limit, faults);
        if let Err(unknown) = self.states() {
            faults.add("state", unknown);
        }
        for (name, text) in [("kind", &self.kind), ("queue", &self.queue)] {
            if let Some(text) = text {
                faults.text(name, text, 100);
            }
        }
        let mut users = self.users();
        if let Some(first) = users.next()
            && users.any(|other| other != first)
        {
            faults.add("user", "user, user_id and userId are the same parameter, with different values here");
        }
        if self.sort.as_ref().is_some_and(|sort| sort != "-createdAt") {
            faults.add("sort", "jobs are sorted by -createdAt");
        }
    }
}

/// The jobs that one may see, newest first
///
/// A person sees their own, operators every one of the tenant. A page may be short and have a next
/// one: a filter that matches little does not make it slow.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", params(ListJobs), responses((status = 200, body = Page<Job>)))]
async fn list_jobs(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListJobs>,
) -> Result<Linked<Job>, ApiError> {
    let list = List::new("/api/v1/jobs")
        .filter("state", query.state.as_ref())
        .filter("kind", query.kind.as_ref())
        .filter("queue", query.queue.as_ref())
        .filter("parent", query.parent)
        .filter("schedule", query.schedule)
        .filter("user", query.users().next())
        .filter("createdFrom", query.created_from)
        .filter("createdBefore", query.created_before);
    let after: Option<JobId> = list.begin(query.cursor.as_deref())?;
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let conn = &mut *api.queue.read().await?;
    let found = jobs::list(conn, caller.actor(), &query.filter(), after, limit).await?;
    Ok(list.page(found.jobs.into_iter().map(Job::from).collect(), found.next, limit))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Wait {
    /// Answers when the job has ended, or after this time at the latest; at most a minute.
    #[param(example = "30s")]
    wait: Option<String>,
}

const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Wait {
    fn span(&self) -> Option<Duration> {
        self.wait.as_deref().and_then(parse_span)
    }
}

impl Validate for Wait {
    fn validate(&self, faults: &mut Faults) {
        if self.wait.is_some() && self.span().is_none_or(|wait| wait > LONGEST_WAIT) {
            faults.add("wait", "a span of time such as 30s, at most 60s");
        }
    }
}

/// What a request asks to wait for, as far as it is ours to decide how long that may take.
pub(crate) fn asked_wait(uri: &Uri) -> Duration {
    let query = uri.query().unwrap_or_default().as_bytes();
    let wait = url::form_urlencoded::parse(query).find(|(name, _)| name == "wait");
    wait.and_then(|(_, wait)| parse_span(&wait)).unwrap_or_default().min(LONGEST_WAIT)
}

/// One job, and why it waits
///
/// With `wait` it answers when the job has ended or the time has passed.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = Uuid, Path), Wait), responses((status = 200, body = Job)))]
async fn get_job(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<JobId>,
    Query(query): Query<Wait>,
) -> Result<Json<Job>, ApiError> {
    if let Some(wait) = query.span() {
        until_over(&api, &caller, id, wait).await?;
    }
    let mut conn = api.queue.read().await?;
    let row = jobs::get(&mut conn, caller.actor(), id).await?;
    let waiting = match row.state.is_waiting() {
        true => jobs::waiting(&mut conn, caller.actor(), id).await?,
        false => None,
    };
    Ok(Json(Job { waiting: waiting.map(Into::into), ..row.into() }))
}

/// Returns when the job is over, gone, or the time has passed. Holds no database connection while it
/// waits, and reads rights anew only through the watcher: who lost them waits no longer.
async fn until_over(api: &Api, caller: &Caller, id: JobId, wait: Duration) -> Result<(), ApiError> {
    let deadline = Instant::now() + wait;
    // Before the first look, so that nothing is missed in between.
    let client = api.watcher.open(caller, Interest::Job(id), "jobs")?;
    let row = jobs::get(&mut *api.queue.read().await?, caller.actor(), id).await?;
    if row.state.is_terminal() {
        return Ok(());
    }
    api.watcher.has_read(&row);
    loop {
        match timeout_at(deadline, client.next()).await {
            Ok(Ok(change)) if !change.is_terminal() => {}
            Ok(Err(Ended::Revoked)) => {
                return Err(ApiError::unauthenticated("this key is not accepted any more"));
            }
            Ok(Err(Ended::Unconfirmed)) => {
                return Err(ApiError::unavailable("the database does not answer; try again"));
            }
            Ok(Ok(_) | Err(_)) | Err(_) => return Ok(()),
        }
    }
}

/// Cancels a job
///
/// A waiting one at once (`200`), a running one as soon as it has stopped (`202`). One that is over
/// is answered as it is.
#[utoipa::path(
    post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "It is over", body = Job),
        (status = 202, description = "It has been told to stop", body = Job),
    )
)]
async fn cancel_job(mut tx: ApiTx, Id(id): Id<JobId>) -> Result<Response, ApiError> {
    let job = Job::from(jobs::cancel(&mut tx, id).await?);
    let answer = if job.terminal { Json(job).into_response() } else { accepted(job.id, job) };
    tx.commit(answer).await
}

/// Queues a failed or cancelled job again
#[utoipa::path(post, path = "/api/v1/jobs/{id}/retry", tag = "jobs", params(("id" = Uuid, Path)), responses((status = 202, body = Job)))]
async fn retry_job(mut tx: ApiTx, Id(id): Id<JobId>) -> Result<Response, ApiError> {
    let job = Job::from(jobs::retry(&mut tx, id).await?);
    tx.commit(accepted(job.id, job)).await
}

/// Deletes a job that is over
#[utoipa::path(delete, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = Uuid, Path)), responses((status = 204, description = "It is gone")))]
async fn delete_job(mut tx: ApiTx, Id(id): Id<JobId>) -> Result<Response, ApiError> {
    jobs::delete(&mut tx, id).await?;
    tx.commit(StatusCode::NO_CONTENT).await
}

/// Which jobs. Everything that is set must hold; nothing set means all that one may see.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct JobFilter {
    /// Any of these.
    #[schema(max_items = 9)]
    states: Vec<JobState>,
    #[schema(max_length = 100)]
    kind: Option<String>,
    #[schema(max_length = 100)]
    queue: Option<String>,
    parent: Option<Uuid>,
    schedule: Option<Uuid>,
    user: Option<Uuid>,
    created_from: Option<Timestamp>,
    created_before: Option<Timestamp>,
}

impl Validate for JobFilter {
    fn validate(&self, faults: &mut Faults) {
        if self.states.len() > 9 {
            faults.add("/states", "there are 9 states");
        }
        for (pointer, text) in [("/kind", &self.kind), ("/queue", &self.queue)] {
            if let Some(text) = text {
                faults.text(pointer, text, 100);
            }
        }
    }
}

impl From<JobFilter> for Filter {
    fn from(filter: JobFilter) -> Self {
        Self {
            states: filter.states.into_iter().map(Into::into).collect(),
            kind: filter.kind,
            queue: filter.queue,
            parent: filter.parent.map(Into::into),
            schedule: filter.schedule.map(Into::into),
            user: filter.user.map(Into::into),
            created_from: filter.created_from,
            created_before: filter.created_before,
            ..Self::default()
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Changed {
    /// With this request.
    changed: u64,
    /// The job that changes the others, when there may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<Uuid>,
}

/// Retries the failed and cancelled jobs that match
///
/// The first few hundred at once, the others by a job of their own, which paces itself.
#[utoipa::path(
    post, path = "/api/v1/jobs/retry", tag = "jobs",
    request_body(content = JobFilter, example = json!({ "states": ["failed"], "kind": "catalog.sync_repository" })),
    responses((status = 200, description = "All of them", body = Changed), (status = 202, description = "A job does the rest", body = Changed))
)]
async fn retry_jobs(tx: ApiTx, Valid(filter): Valid<JobFilter>) -> Result<Response, ApiError> {
    change_jobs(tx, Change::Retry, filter).await
}

/// Cancels the jobs that match
///
/// The first few hundred at once, the others by a job of their own.
#[utoipa::path(
    post, path = "/api/v1/jobs/cancel", tag = "jobs",
    request_body(content = JobFilter, example = json!({ "queue": "batch" })),
    responses((status = 200, description = "All of them", body = Changed), (status = 202, description = "A job does the rest", body = Changed))
)]
async fn cancel_jobs(tx: ApiTx, Valid(filter): Valid<JobFilter>) -> Result<Response, ApiError> {
    change_jobs(tx, Change::Cancel, filter).await
}

async fn change_jobs(mut tx: ApiTx, change: Change, filter: JobFilter) -> Result<Response, ApiError> {
    let done = jobs::change_matching(&mut tx, change, &filter.into()).await?;
    let changed = Changed { changed: done.changed, job_id: done.job.map(|job| job.0) };
    let answer = match done.job {
        Some(job) => accepted(job.0, changed),
        None => Json(changed).into_response(),
    };
    tx.commit(answer).await
}

/// What waits, runs and has ended
#[utoipa::path(get, path = "/api/v1/jobs/stats", tag = "jobs", responses((status = 200, body = Stats)))]
async fn job_stats(State(api): State<Api>, caller: Caller) -> Result<Json<Stats>, ApiError> {
    let stats = jobs::stats(&mut *api.queue.read().await?, caller.actor()).await?;
    Ok(Json(stats.into()))
}
