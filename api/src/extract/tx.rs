//! The transaction of a request. It takes its connection at the first statement, so never while a
//! body is still arriving, and its commit stores the answer that a repeated request gets.

use std::ops::{Deref, DerefMut};

use axum::{
    body::{Body, to_bytes},
    extract::FromRequestParts,
    http::request::Parts,
    response::{IntoResponse, Response},
};
use streamspace_domain::idempotency::{self, Claim, FinishError, Keep};
use streamspace_queue::Tx;

use crate::{caller::Caller, idempotency::stored_headers, problem::ApiError, state::Api};

pub struct ApiTx {
    tx: Tx,
    claim: Option<Claim>,
}

impl Deref for ApiTx {
    type Target = Tx;
    fn deref(&self) -> &Tx {
        &self.tx
    }
}

impl DerefMut for ApiTx {
    fn deref_mut(&mut self) -> &mut Tx {
        &mut self.tx
    }
}

impl FromRequestParts<Api> for ApiTx {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, api).await?;
        let claim = parts.extensions.get::<Claim>().cloned();
        Ok(Self { tx: api.queue.begin(caller.actor().clone(), caller.request().clone()), claim })
    }
}

/// Marks answers that are told once: they carry a secret. A repeated request learns where the thing
/// is, not what it was.
#[derive(Clone, Debug)]
pub struct Once {
    pub location: Option<String>,
}

/// The answer was stored with the operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored;

impl ApiTx {
    /// Commits, and only then there is an answer. Under an Idempotency-Key the answer is stored in
    /// the same commit; if somebody else has taken the request over, nothing of this one remains.
    pub async fn commit(mut self, answer: impl IntoResponse) -> Result<Response, ApiError> {
        let answer = answer.into_response();
        let Some(claim) = self.claim.take() else {
            self.tx.commit().await?;
            return Ok(answer);
        };
        let (mut parts, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.map_err(|error| ApiError::internal(&error))?;
        let status = parts.status.as_u16();
        let headers = stored_headers(&parts.headers);
        let keep = match parts.extensions.get::<Once>() {
            Some(once) => Keep::Place { status, location: once.location.clone() },
            None if body.len() > idempotency::MAX_BODY => Keep::Head { status, headers },
            None => Keep::Whole(idempotency::Answer { status, headers, body: body.to_vec() }),
        };
        match idempotency::finish(&mut self.tx, &claim, keep).await {
            Ok(()) => {}
            Err(FinishError::Lost) => {
                self.tx.rollback().await?;
                return Err(ApiError::conflict(
                    "idempotency-in-flight",
                    "another request with this Idempotency-Key has taken over",
                ));
            }
            Err(FinishError::Db(error)) => return Err(error.into()),
        }
        self.tx.commit().await?;
        parts.extensions.insert(Stored);
        Ok(Response::from_parts(parts, Body::from(body)))
    }
}
