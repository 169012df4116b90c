//! Server-sent events, WebSockets, and the tickets that open them.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    extract::{State, WebSocketUpgrade},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamspace_common::JobId;
use streamspace_domain::{jobs, tickets};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    caller::Caller,
    extract::{ApiTx, Faults, Id, Once, Query, Valid, Validate},
    operations,
    problem::ApiError,
    socket,
    state::Api,
    view::Job,
    watch::{Client, Interest},
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(job_events))
        .routes(routes!(watch_jobs))
        .routes(routes!(create_ticket))
}

pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NoParameters {}

impl Validate for NoParameters {
    fn validate(&self, _: &mut Faults) {}
}

/// A job's changes as server-sent events, until it is over
///
/// The id of an event is the job's version; whoever sends it back as `Last-Event-ID` hears what is
/// newer. `204` when nothing newer will ever come. An event named `end` says why a stream ends
/// before its job: after `unavailable`, `slow-consumer` and `going-away` it may be opened again.
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}/events", tag = "jobs",
    params(("id" = Uuid, Path), ("Last-Event-ID" = Option<i64>, Header)),
    responses(
        (status = 200, description = "`job.state.changed` and `job.progress`, each with the job", content_type = "text/event-stream", body = Job),
        (status = 204, description = "It is over, and this version is known"),
    )
)]
async fn job_events(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<JobId>,
    Query(NoParameters {}): Query<NoParameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.parse::<i64>().ok());
    // Before the first look, so that nothing is missed in between.
    let client = api.watcher.open(&caller, Interest::Job(id), "jobs")?;
    let row = jobs::get(&mut *api.queue.read().await?, caller.actor(), id).await?;
    api.watcher.has_read(&row);
    let (version, over) = (row.row_version, row.state.is_terminal());
    let is_known = last.is_some_and(|last| last >= version);
    if over && is_known {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let first = (!is_known).then(|| {
        let job = serde_json::to_string(&Job::from(row)).unwrap_or_default();
        Event::default().id(version.to_string()).event("job.state.changed").data(job)
    });
    let events = events(first, (!over).then_some(client), version);
    let stream = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("alive"));
    // Proxies would hold events back until a buffer is full.
    Ok(([(ACCEL_BUFFERING, HeaderValue::from_static("no"))], stream).into_response())
}

/// The first event, then what the client hears, to the end of the job.
fn events(
    first: Option<Event>,
    client: Option<Client>,
    seen: i64,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((first, client, seen), async |(first, client, seen)| {
        if let Some(first) = first {
            return Some((Ok(first), (None, client, seen)));
        }
        let client = client?;
        loop {
            match client.next().await {
                // Older than what was read at the start.
                Ok(change) if change.version() <= seen => {}
                Ok(change) => {
                    let version = change.version();
                    let event = Event::default()
                        .id(version.to_string())
                        .event(change.name())
                        .data(String::from_utf8_lossy(change.job()));
                    return Some((Ok(event), (None, (!change.is_terminal()).then_some(client), version)));
                }
                Err(why) => {
                    let reason = serde_json::json!({ "reason": why.as_str() });
                    return Some((
                        Ok(Event::default().event("end").data(reason.to_string())),
                        (None, None, seen),
                    ));
                }
            }
        }
    })
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
struct WatchJobs {
    /// Changes of this job alone.
    job_id: Option<Uuid>,
    /// Changes of jobs of this kind.
    kind: Option<String>,
}

impl Validate for WatchJobs {
    fn validate(&self, faults: &mut Faults) {
        if let Some(kind) = &self.kind {
            faults.text("kind", kind, 100);
        }
        if self.job_id.is_some() && self.kind.is_some() {
            faults.add("kind", "a job has one kind; give one of jobId and kind");
        }
    }
}

/// Changes of the jobs that one may see, as a WebSocket
///
/// Text messages `{type, jobId, userId, timestamp, data}` with the types `job.state.changed` (`data`:
/// kind, state, previousState, attempt, error) and `job.progress` (`data`: kind, percent, current,
/// total, unit, message). The server pings every 15 s; a client that falls behind is closed with the
/// reason `slow-consumer`.
#[utoipa::path(
    get, path = "/api/v1/ws/jobs", tag = "realtime", params(WatchJobs),
    responses(
        (status = 101, description = "It is a WebSocket now"),
        (status = 426, description = "It was not asked to become a WebSocket", content_type = "application/problem+json", body = crate::problem::Problem),
    )
)]
async fn watch_jobs(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<WatchJobs>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|_| {
        ApiError::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade-required",
            "This is a WebSocket",
            "connect with a WebSocket client",
        )
        .with(http::header::UPGRADE, HeaderValue::from_static("websocket"))
    })?;
    let interest = match query.job_id {
        Some(id) => Interest::Job(id.into()),
        None => Interest::Jobs { kind: query.kind },
    };
    let client = api.watcher.open(&caller, interest, "realtime")?;
    if let Some(id) = query.job_id {
        let row = jobs::get(&mut *api.queue.read().await?, caller.actor(), id.into()).await?;
        api.watcher.has_read(&row);
    }
    Ok(socket::serve(upgrade, client))
}

/// The path of a stream.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TicketBody {
    #[schema(example = "/api/v1/ws/jobs", max_length = 1024)]
    path: String,
}

impl Validate for TicketBody {
    fn validate(&self, faults: &mut Faults) {
        if !operations::is_stream(&self.path) || self.path.len() > 1024 {
            faults.add("/path", "not the path of a stream, without parameters");
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Ticket {
    /// To be sent as `?ticket=`.
    ticket: String,
    expires_at: Timestamp,
}

/// A ticket that opens one stream
///
/// Valid once, for 30 s, for that path, with the caller's rights: so that no key lands in a log of
/// addresses.
#[utoipa::path(post, path = "/api/v1/streams/ticket", tag = "realtime", request_body = TicketBody, responses((status = 201, body = Ticket)))]
async fn create_ticket(
    caller: Caller,
    mut tx: ApiTx,
    Valid(body): Valid<TicketBody>,
) -> Result<Response, ApiError> {
    let ticket = tickets::issue(&mut tx, caller.checked(), &body.path).await?;
    let answer = Ticket { ticket: ticket.secret.expose().clone(), expires_at: ticket.expires_at };
    let mut answer = (StatusCode::CREATED, Json(answer)).into_response();
    answer.extensions_mut().insert(Once { location: None });
    tx.commit(answer).await
}
