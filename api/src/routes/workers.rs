use axum::{Json, extract::State, response::Response};
use streamspace_common::BootId;
use streamspace_domain::jobs::workers;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Paging;
use crate::{
    caller::Caller,
    extract::{ApiTx, Id, Query},
    page::{Linked, List, Page},
    problem::ApiError,
    state::Api,
    view::Worker,
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_workers))
        .routes(routes!(get_worker))
        .routes(routes!(drain_worker))
        .routes(routes!(resume_worker))
}

/// The processes that run jobs, oldest first
///
/// A tenant's operators see what each runs of theirs, and neither hosts nor others' jobs.
#[utoipa::path(get, path = "/api/v1/workers", tag = "jobs", params(Paging), responses((status = 200, body = Page<Worker>)))]
async fn list_workers(
    State(api): State<Api>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Linked<Worker>, ApiError> {
    let list = List::new("/api/v1/workers");
    let after: Option<String> = list.begin(paging.cursor.as_deref())?;
    let mut workers = workers::list(&mut *api.queue.read().await?, caller.actor()).await?;
    workers.retain(|worker| after.as_ref().is_none_or(|after| place(worker) > *after));
    let next = workers.get(paging.limit() as usize).is_some();
    workers.truncate(paging.limit() as usize);
    let next = workers.last().filter(|_| next).map(place);
    Ok(list.page(workers.into_iter().map(Worker::from).collect(), next, paging.limit()))
}

/// Where it stands in the list, as text that sorts like it.
fn place(worker: &workers::Worker) -> String {
    format!("{:020}/{}", worker.started_at.as_microsecond(), worker.id)
}

/// One worker, and which jobs it runs
#[utoipa::path(get, path = "/api/v1/workers/{id}", tag = "jobs", params(("id" = uuid::Uuid, Path)), responses((status = 200, body = Worker)))]
async fn get_worker(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<BootId>,
) -> Result<Json<Worker>, ApiError> {
    let mut conn = api.queue.read().await?;
    let worker = workers::get(&mut conn, caller.actor(), id).await?;
    let running = workers::running(&mut conn, caller.actor(), id).await?;
    let running_jobs = Some(running.into_iter().map(|id| id.0).collect());
    Ok(Json(Worker { running_jobs, ..worker.into() }))
}

/// Takes no more jobs, and ends when those that it runs have ended
#[utoipa::path(post, path = "/api/v1/workers/{id}/drain", tag = "jobs", params(("id" = uuid::Uuid, Path)), responses((status = 200, body = Worker)))]
async fn drain_worker(mut tx: ApiTx, Id(id): Id<BootId>) -> Result<Response, ApiError> {
    let worker = workers::drain(&mut tx, id).await?;
    tx.commit(Json(Worker::from(worker))).await
}

/// Takes a drain back, if the worker has not ended yet
#[utoipa::path(post, path = "/api/v1/workers/{id}/resume", tag = "jobs", params(("id" = uuid::Uuid, Path)), responses((status = 200, body = Worker)))]
async fn resume_worker(mut tx: ApiTx, Id(id): Id<BootId>) -> Result<Response, ApiError> {
    let worker = workers::resume(&mut tx, id).await?;
    tx.commit(Json(Worker::from(worker))).await
}
