//! `Idempotency-Key` on POST: the layer that claims a key before the operation runs, answers for it
//! when it has run, and stores refusals. The success itself is stored by the operation's own commit.

use std::collections::BTreeMap;

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use streamspace_domain::idempotency::{self, Answer, Begin, Claim};
use tracing::warn;

use crate::{
    caller::Caller,
    extract::body,
    problem::{ApiError, CONTENT_TYPE, Problem},
    state::Api,
};

pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const MAX_KEY: usize = 255;

/// What of an answer's headers is the operation's own; the others belong to each request.
const KEPT: [HeaderName; 4] = [header::CONTENT_TYPE, header::LOCATION, header::RETRY_AFTER, header::LINK];

pub(crate) fn stored_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |name: &HeaderName| Some((name.to_string(), headers.get(name)?.to_str().ok()?.to_owned()));
    KEPT.iter().filter_map(text).collect()
}

pub async fn once(State(api): State<Api>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    let key = request.headers().get(KEY).cloned();
    match (caller, key) {
        (Some(caller), Some(key)) if request.method() == Method::POST => {
            run_once(api, &caller, &key, request, next).await.unwrap_or_else(IntoResponse::into_response)
        }
        _ => next.run(request).await,
    }
}

async fn run_once(
    api: Api,
    caller: &Caller,
    key: &HeaderValue,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let key = key
        .to_str()
        .ok()
        .filter(|key| (1..=MAX_KEY).contains(&key.len()))
        .ok_or_else(|| ApiError::malformed("an Idempotency-Key has 1 to 255 visible ASCII characters"))?;
    let (parts, body) = request.into_parts();
    let body = body::read(Request::from_parts(parts.clone(), body), &api).await?;
    // What follows the path decides as much as the body.
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let asked = idempotency::Request::new(
        api.sign_ins.master(),
        caller.actor(),
        parts.method.as_str(),
        parts.uri.path(),
        key,
        &[query, &body],
    );
    let claim = match idempotency::begin(&api.queue, asked).await? {
        Begin::Run(claim) => claim,
        Begin::Replay(answer) => return Ok(replay(answer)),
        Begin::TooLong { status, headers } => return Err(too_long(status, &headers)),
        Begin::AlreadyCreated { location } => return Err(already_created(location)),
        Begin::InFlight => {
            return Err(ApiError::conflict(
                "idempotency-in-flight",
                "a request with this Idempotency-Key is being answered",
            )
            .with(header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
        Begin::OtherBody => {
            return Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The Idempotency-Key belongs to another request",
                "this Idempotency-Key was used with another body",
            ));
        }
    };
    let mut request = Request::from_parts(parts, Body::from(body));
    request.extensions_mut().insert(claim.clone());
    // A caller who hangs up does not stop what they started: they will ask again.
    let (running, running_claim) = (api.clone(), claim.clone());
    let running =
        tokio::spawn(async move { settle(&running, &running_claim, next.run(request).await).await });
    let ended = match running.await {
        Ok(response) => return Ok(response),
        Err(ended) => ended,
    };
    match ended.try_into_panic() {
        Ok(panic) => {
            // It may fare better later, like any other mistake of ours.
            if let Err(error) = idempotency::release(&api.queue, &claim).await {
                warn!(error = %error, "an Idempotency-Key stays locked until its lock expires");
            }
            std::panic::resume_unwind(panic)
        }
        Err(_) => Ok(ApiError::unavailable("the process is stopping").into_response()),
    }
}

/// Stores a refusal; gives the lock back when the same request may fare better later.
async fn settle(api: &Api, claim: &Claim, response: Response) -> Response {
    if response.extensions().get::<crate::extract::Stored>().is_some() {
        return response;
    }
    let status = response.status();
    let (settled, response) = if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, idempotency::MAX_BODY).await.unwrap_or_default();
        let headers = stored_headers(&parts.headers);
        let answer = Answer { status: status.as_u16(), headers, body: body.to_vec() };
        let response = Response::from_parts(parts, Body::from(body));
        (idempotency::finish_refusal(&api.queue, claim, answer).await, response)
    } else {
        (idempotency::release(&api.queue, claim).await, response)
    };
    if let Err(error) = settled {
        warn!(error = %error, "an Idempotency-Key stays locked until its lock expires");
    }
    response
}

fn replay(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, answer.body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    replayed_problem(response)
}

/// A problem is completed for the request that it answers now.
fn replayed_problem(response: Response) -> Response {
    if response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != CONTENT_TYPE) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The body is in memory, so reading it does not wait.
    match futures::FutureExt::now_or_never(to_bytes(body, usize::MAX)) {
        Some(Ok(body)) => {
            if let Ok(problem) = serde_json::from_slice::<Problem>(&body) {
                parts.extensions.insert(problem);
            }
            Response::from_parts(parts, Body::from(body))
        }
        _ => Response::from_parts(parts, Body::empty()),
    }
}

fn already_created(location: Option<String>) -> ApiError {
    let error = ApiError::conflict(
        "already-created",
        "this request was answered before, with something that is told only once",
    );
    located(error, location.as_deref())
}

fn too_long(status: u16, headers: &BTreeMap<String, String>) -> ApiError {
    let detail = format!(
        "this request was carried out and answered with {status} before; the answer was too long to be \
         kept, so read what it is about"
    );
    located(ApiError::conflict("answer-not-kept", detail), headers.get("location").map(String::as_str))
}

fn located(error: ApiError, location: Option<&str>) -> ApiError {
    match location.and_then(|location| HeaderValue::from_str(location).ok()) {
        Some(location) => error.with(header::LOCATION, location),
        None => error,
    }
}
