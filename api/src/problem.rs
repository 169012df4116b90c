//! RFC 9457 problems: every answer that is not a success is one of these.
//!
//! `type` is stable and names what a program may act on; `title` and `detail` are for the person who
//! reads them. None of them ever holds SQL, a stack or a path of the host.

use std::{error::Error, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use streamspace_common::{Classified, ErrorKind};
use tracing::error;
use utoipa::ToSchema;

pub const CONTENT_TYPE: &str = "application/problem+json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Stable: `/problems/not-found`.
    #[serde(rename = "type")]
    #[schema(example = "/problems/not-found")]
    pub kind: String,
    #[schema(example = "Not found")]
    pub title: String,
    #[schema(example = 404)]
    pub status: u16,
    pub detail: String,
    /// The path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What to tell whoever looks into the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What is wrong with the request, field by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// A JSON pointer into the body, or the name of a parameter.
    #[schema(example = "/cron")]
    pub pointer: String,
    #[schema(example = "not a cron expression")]
    pub detail: String,
}

impl FieldError {
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// What a handler fails with.
#[derive(Clone, Debug)]
pub struct ApiError {
    problem: Box<Problem>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub fn new(status: StatusCode, name: &str, title: &str, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: format!("/problems/{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            instance: None,
            request_id: None,
            errors: Vec::new(),
        };
        Self { problem: Box::new(problem), headers: Vec::new() }
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Not permitted", detail)
    }

    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Not signed in", detail)
            .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// The request cannot be read at all.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The request cannot be read", detail)
    }

    /// It can be read, and fields of it are wrong.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", only.pointer, only.detail),
            several => format!("{} fields are wrong", several.len()),
        };
        let mut error =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request is not valid", detail);
        error.problem.errors = errors;
        error
    }

    pub fn invalid_field(pointer: &str, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(pointer, detail)])
    }

    pub fn conflict(name: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, name, "Something else stands in the way", detail)
    }

    pub fn too_many(name: &str, title: &str, detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, name, title, detail).retry_after(retry_after)
    }

    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now", detail)
            .retry_after(Duration::from_secs(1))
    }

    /// Our fault. The cause is logged, never told.
    pub fn internal(cause: &dyn Error) -> Self {
        error!(error = chain(cause), "internal error: {}", chain(cause));
        let mut error = Self::internal_untold();
        error.problem.detail.push_str("; the log tells more under the request's id");
        error
    }

    pub(crate) fn internal_untold() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", "internal error")
    }

    #[must_use]
    pub(crate) fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.problem.errors = errors;
        self
    }

    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    #[must_use]
    fn retry_after(self, after: Duration) -> Self {
        // Rounded up: who comes exactly then must not come too early.
        self.with(header::RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1000) as u64))
    }

    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// For answers that something else than a handler made: a framework's bare status.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::not_found("there is nothing here"),
            StatusCode::METHOD_NOT_ALLOWED => {
                Self::new(status, "method-not-allowed", "Method not allowed", "not with this method")
            }
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            StatusCode::REQUEST_TIMEOUT => {
                Self::new(status, "timeout", "Too slow", "the request did not arrive in time")
            }
            status if status.is_server_error() => Self::internal_untold(),
            status => Self::new(
                status,
                "malformed",
                status.canonical_reason().unwrap_or("The request cannot be answered"),
                "the request cannot be answered",
            ),
        }
    }
}

pub(crate) fn too_large() -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too-large",
        "The body is too large",
        "the body is larger than this server takes",
    )
}

impl<E: Classified> From<E> for ApiError {
    fn from(error: E) -> Self {
        let detail = || error.to_string();
        match error.kind() {
            ErrorKind::NotFound => Self::not_found(detail()),
            ErrorKind::Forbidden => Self::forbidden(detail()),
            ErrorKind::Unauthenticated => Self::unauthenticated(detail()),
            ErrorKind::Invalid if let Some((pointer, detail)) = error.field() => {
                Self::invalid_field(pointer, detail)
            }
            ErrorKind::Invalid => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request is not valid", detail())
            }
            ErrorKind::Conflict => Self::conflict("conflict", detail()),
            ErrorKind::Gone => Self::new(StatusCode::GONE, "gone", "It is no more", detail()),
            ErrorKind::RateLimited { retry_after } => {
                Self::too_many("rate-limited", "Too many requests", detail(), retry_after)
            }
            ErrorKind::Unavailable => {
                error!(error = chain(&error), "unavailable: {}", chain(&error));
                Self::unavailable("something that this needs does not answer; try again")
            }
            ErrorKind::Internal => Self::internal(&error),
        }
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl IntoResponse for ApiError {
    /// The problem travels beside the answer too, so that who knows the request can complete it.
    fn into_response(self) -> Response {
        let mut response = self.problem.render();
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(*self.problem);
        response
    }
}

impl Problem {
    pub(crate) fn render(&self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_logged_and_not_told() {
        let error = ApiError::from(sqlx::Error::Protocol("select secret from users".to_owned()));
        let told = serde_json::to_string(error.problem()).expect("plain data");
        assert!(!told.contains("secret"), "{told}");
        assert_eq!(error.problem().status, 500);
    }

    #[test]
    fn what_is_wrong_is_told_field_by_field() {
        let error = ApiError::invalid(vec![FieldError::new("/a", "x"), FieldError::new("/b", "y")]);
        assert_eq!(error.problem().errors.len(), 2);
        assert_eq!(error.problem().kind, "/problems/invalid");
    }
}
