//! Around every request: its id and trace, one line in the log, what a panic or a framework leaves
//! turned into a problem, and the headers that every answer has.

use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use streamspace_admin::Peer;
use streamspace_common::{ApiKeyId, TenantId, UserId, config::Networks};
use tracing::{error, info};
use uuid::Uuid;

use crate::{
    address, operations,
    problem::{ApiError, CONTENT_TYPE, Problem},
    routes::jobs,
    state::Api,
};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Who asked, for the log; put beside the answer by whoever found out.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub tenant: TenantId,
    pub user: Option<UserId>,
    /// Whose use of the API is logged.
    pub key: Option<ApiKeyId>,
}

/// The outermost layer.
pub async fn observe(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    // What is a secret in a path is in no answer.
    let told = route.as_ref().filter(|route| route.contains("{token}")).unwrap_or(&path).clone();
    let context = context(&request, api.trusted_proxies.as_ref());
    let id = context.id.clone().unwrap_or_default();
    let address = context.address;
    request.extensions_mut().insert(context);

    let mut response = complete(next.run(request).await, &told, &id);
    dress(response.headers_mut(), &path, api.over_tls);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let took = start.elapsed();
    log(&method, route.as_deref(), &response, took, &id, address);
    api.calls.record(&method, route.as_deref(), &response, took, address);
    response
}

/// What is left of a panic. The panic itself is logged by the hook; this ties it to the request. By its
/// route: what stands in a path may be a secret.
pub async fn catch(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    let id = request.extensions().get::<streamspace_queue::Request>().and_then(|context| context.id.clone());
    AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
        error!(request_id = id, "a handler of {method} {} panicked", route.as_deref().unwrap_or("unmatched"));
        ApiError::internal_untold().into_response()
    })
}

fn context(request: &Request, proxies: Option<&Networks>) -> streamspace_queue::Request {
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let id = header(REQUEST_ID).filter(|id| is_sane_id(id)).map(str::to_owned);
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|info| info.0.0.ip());
    streamspace_queue::Request {
        id: Some(id.unwrap_or_else(|| Uuid::now_v7().to_string())),
        traceparent: header(TRACEPARENT).filter(|trace| is_traceparent(trace)).map(str::to_owned),
        address: peer.map(|peer| address::of_client(peer, request.headers(), proxies)),
    }
}

/// What we are ready to repeat in headers, logs and rows.
fn is_sane_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/'))
}

/// W3C Trace Context, version 00: trace and parent are there and not zero.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    };
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    match text.split('-').collect::<Vec<_>>()[..] {
        [version, trace, parent, flags] => {
            version == "00"
                && hex(trace, 32)
                && some(trace)
                && hex(parent, 16)
                && some(parent)
                && hex(flags, 2)
        }
        _ => false,
    }
}

/// Every refusal is a problem that names its request, whoever made it.
fn complete(mut response: Response, path: &str, id: &str) -> Response {
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if status.is_client_error() || status.is_server_error() => {
            let told = response.headers().get(header::CONTENT_TYPE);
            // A health check that fails tells what failed.
            if told.is_some_and(|told| told == CONTENT_TYPE || told == "application/json") {
                return response;
            }
            ApiError::of_status(status).problem().clone()
        }
        None => return response,
    };
    let problem = Problem { instance: Some(path.to_owned()), request_id: Some(id.to_owned()), ..problem };
    let (mut parts, _) = response.into_parts();
    let (_, body) = problem.render().into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    Response::from_parts(parts, body)
}

/// A browser that has been here by TLS comes in no other way for a year.
const HSTS: &str = "max-age=31536000; includeSubDomains";

/// Nothing of ours is framed, guessed or cached. The page of the documents alone runs scripts, its
/// own.
fn dress(headers: &mut HeaderMap, path: &str, over_tls: bool) {
    let policy = if path.starts_with("/api/docs") {
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    } else {
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    };
    // Pages that bring their own say by hash what may run in them.
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if over_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
    }
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

fn log(
    method: &Method,
    route: Option<&str>,
    response: &Response,
    took: Duration,
    id: &str,
    address: Option<IpAddr>,
) {
    let status = response.status().as_u16();
    let asked = response.extensions().get::<Asked>();
    // What matches no route is a stranger's text: it is not repeated, and is one time series.
    let route = route.unwrap_or("unmatched");
    let tenant = asked.map(|asked| asked.tenant.to_string());
    let user = asked.and_then(|asked| asked.user).map(|user| user.to_string());
    info!(
        method = method.as_str(),
        route,
        status,
        duration_ms = took.as_secs_f64() * 1000.0,
        request_id = id,
        address = address.map(tracing::field::display),
        tenant,
        user,
        "{method} {route} {status} in {took:.1?}"
    );
    metrics::histogram!(
        "streamspace_http_request_duration_seconds",
        "method" => method_label(method), "route" => route.to_owned(), "status" => status.to_string()
    )
    .record(took.as_secs_f64());
}

/// A stranger may invent methods; they are one.
pub(crate) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// How long a handler may take, beside the time that it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends requests that take too long: a slow body, a database that hangs. A stream is an answer once
/// it has begun.
pub async fn hurry(request: Request, next: Next) -> Response {
    let patience = PATIENCE + waits(&request);
    in_time(patience, next.run(request)).await.unwrap_or_else(IntoResponse::into_response)
}

fn waits(request: &Request) -> Duration {
    let route = request.extensions().get::<MatchedPath>();
    let operation = route.and_then(|route| operations::find(request.method(), route.as_str()));
    match operation.is_some_and(|operation| operation.streams) {
        true => jobs::asked_wait(request.uri()),
        false => Duration::ZERO,
    }
}

/// For what is asked before there is a handler.
pub async fn soon<T>(answer: impl Future<Output = T>) -> Result<T, ApiError> {
    in_time(PATIENCE, answer).await
}

async fn in_time<T>(patience: Duration, answer: impl Future<Output = T>) -> Result<T, ApiError> {
    tokio::time::timeout(patience, answer).await.map_err(|_| {
        let detail = format!("the request was not answered within {} s", patience.as_secs());
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "Took too long", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_ids_are_repeated() {
        assert!(is_sane_id("01J-abc.def_1:2/3"));
        for bad in ["", "a b", "a\"b", "ä", &"x".repeat(129)] {
            assert!(!is_sane_id(bad), "{bad:.20}");
        }
    }

    #[test]
    fn a_trace_is_carried_only_when_it_is_one() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "'; drop table jobs; --",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
