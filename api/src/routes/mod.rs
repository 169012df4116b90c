//! The operations, one file per slice. A handler extracts, operates and renders; what each needs
//! stands in [`crate::access`].

pub mod api_keys;
pub mod audit;
pub mod auth;
pub mod cli_sign_in;
pub mod health;
pub mod jobs;
pub mod links;
pub mod mfa;
pub mod oidc;
pub mod oidc_providers;
pub mod queues;
pub mod registration;
pub mod schedules;
pub mod settings;
pub mod streams;
pub mod teams;
pub mod tenant;
pub mod users;
pub mod workers;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::{
    extract::{Faults, Validate},
    page,
};

/// `202`: a job does the rest. Names the job, and when to look.
pub(crate) fn accepted(job: Uuid, body: impl Serialize) -> Response {
    let location = HeaderValue::from_str(&format!("/api/v1/jobs/{job}")).expect("a UUID is ASCII");
    let headers: [(HeaderName, HeaderValue); 2] =
        [(header::LOCATION, location), (header::RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::ACCEPTED, headers, Json(body)).into_response()
}

/// What every list takes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Items of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: the last page's `nextCursor`.
    cursor: Option<String>,
}

impl Paging {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(page::DEFAULT_LIMIT)
    }
}

impl Validate for Paging {
    fn validate(&self, faults: &mut Faults) {
        page::check(self.limit, faults);
    }
}
