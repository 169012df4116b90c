//! Whoever passed the gate.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use streamspace_common::Actor;
use streamspace_domain::callers::{Checked, Credential};
use streamspace_queue::Request;

use crate::problem::ApiError;

#[derive(Clone, Debug)]
pub struct Caller {
    checked: Arc<Checked>,
    request: Request,
}

impl Caller {
    pub(crate) fn new(checked: Arc<Checked>, request: Request) -> Self {
        Self { checked, request }
    }

    pub fn actor(&self) -> &Actor {
        &self.checked.actor
    }

    pub fn credential(&self) -> Credential {
        self.checked.credential
    }

    pub fn checked(&self) -> &Arc<Checked> {
        &self.checked
    }

    pub fn request(&self) -> &Request {
        &self.request
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    /// Without the gate there is nobody: an operation that is missing in its table stays closed.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| ApiError::unauthenticated("this operation is open to nobody"))
    }
}
