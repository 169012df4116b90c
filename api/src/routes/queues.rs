use axum::{Json, extract::State, response::Response};
use serde::{Deserialize, Deserializer};
use streamspace_domain::jobs::queues::{self, ChangeQueue, Rate};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Paging;
use crate::{
    caller::Caller,
    extract::{ApiTx, Faults, Name, Query, Valid, Validate},
    page::{Linked, List, Page},
    problem::ApiError,
    state::Api,
    view::Queue,
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_queues))
        .routes(routes!(get_queue, change_queue))
        .routes(routes!(pause_queue))
        .routes(routes!(resume_queue))
}

/// The queues, by name
///
/// Figures are the tenant's; a platform administrator's are the installation's.
#[utoipa::path(get, path = "/api/v1/queues", tag = "jobs", params(Paging), responses((status = 200, body = Page<Queue>)))]
async fn list_queues(
    State(api): State<Api>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Linked<Queue>, ApiError> {
    let list = List::new("/api/v1/queues");
    let after: Option<String> = list.begin(paging.cursor.as_deref())?;
    let mut queues = queues::list(&mut *api.queue.read().await?, caller.actor(), &api.registry).await?;
    queues.retain(|queue| after.as_ref().is_none_or(|after| queue.name > *after));
    Ok(list
        .page_of(queues.into_iter().map(Queue::from).collect(), paging.limit(), |queue| queue.name.clone()))
}

/// One queue
#[utoipa::path(get, path = "/api/v1/queues/{name}", tag = "jobs", params(("name" = String, Path)), responses((status = 200, body = Queue)))]
async fn get_queue(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
) -> Result<Json<Queue>, ApiError> {
    let queue = queues::get(&mut *api.queue.read().await?, caller.actor(), &api.registry, &name).await?;
    Ok(Json(queue.into()))
}

/// What to change. What is absent stays; `null` removes a limit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[derive(Default)]
struct ChangeQueueBody {
    paused: Option<bool>,
    /// As many of its jobs run at once, over the whole fleet.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<i32>, minimum = 0, maximum = 1_000_000)]
    max_running: Option<Option<i32>>,
    /// No more of its jobs start in a second, minute or hour, over the whole fleet.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "50/s")]
    rate: Option<Option<String>>,
}

/// Tells `null` from absent.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(field: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(field).map(Some)
}

impl Validate for ChangeQueueBody {
    fn validate(&self, faults: &mut Faults) {
        if self.max_running.flatten().is_some_and(|most| !(0..=1_000_000).contains(&most)) {
            faults.add("/maxRunning", "between 0 and 1,000,000");
        }
        if let Some(Some(Err(wrong))) =
            self.rate.as_ref().map(|rate| rate.as_ref().map(|rate| rate.parse::<Rate>()))
        {
            faults.add("/rate", wrong);
        }
    }
}

/// Pauses, resumes, limits
///
/// A platform administrator's change holds for everyone, an operator's for the jobs of the tenant.
/// Every worker obeys within a second.
#[utoipa::path(
    patch, path = "/api/v1/queues/{name}", tag = "jobs", params(("name" = String, Path)),
    request_body(content = ChangeQueueBody, example = json!({ "maxRunning": 20, "rate": "50/s" })),
    responses((status = 200, body = Queue))
)]
async fn change_queue(
    State(api): State<Api>,
    mut tx: ApiTx,
    Name(name): Name,
    Valid(body): Valid<ChangeQueueBody>,
) -> Result<Response, ApiError> {
    let rate = body.rate.map(|rate| rate.and_then(|rate| rate.parse().ok()));
    let change = ChangeQueue { paused: body.paused, max_running: body.max_running, rate };
    let queue = queues::change(&mut tx, &api.registry, &name, &change).await?;
    tx.commit(Json(Queue::from(queue))).await
}

/// Starts no more of its jobs
///
/// Those that run go on.
#[utoipa::path(post, path = "/api/v1/queues/{name}/pause", tag = "jobs", params(("name" = String, Path)), responses((status = 200, body = Queue)))]
async fn pause_queue(State(api): State<Api>, mut tx: ApiTx, Name(name): Name) -> Result<Response, ApiError> {
    let queue = queues::pause(&mut tx, &api.registry, &name).await?;
    tx.commit(Json(Queue::from(queue))).await
}

/// Starts its jobs again
#[utoipa::path(post, path = "/api/v1/queues/{name}/resume", tag = "jobs", params(("name" = String, Path)), responses((status = 200, body = Queue)))]
async fn resume_queue(State(api): State<Api>, mut tx: ApiTx, Name(name): Name) -> Result<Response, ApiError> {
    let queue = queues::resume(&mut tx, &api.registry, &name).await?;
    tx.commit(Json(Queue::from(queue))).await
}
