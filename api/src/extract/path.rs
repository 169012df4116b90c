//! What stands in a path.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use uuid::Uuid;

use crate::problem::ApiError;

/// The UUID in a path.
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: From<Uuid>> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = segment(parts, state).await?;
        // The hyphenated form alone: one thing has one address.
        match Uuid::try_parse(&text) {
            Ok(id) if text.len() == 36 => Ok(Self(id.into())),
            _ => Err(ApiError::malformed("the id in the path is not a UUID")),
        }
    }
}

/// The name in a path.
pub struct Name(pub String);

const MAX_NAME: usize = 64;

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let name = segment(parts, state).await?;
        if name.chars().any(char::is_control) {
            return Err(ApiError::malformed("the name in the path has a control character"));
        }
        if name.chars().count() > MAX_NAME {
            return Err(ApiError::not_found("no name is this long"));
        }
        Ok(Self(name))
    }
}

async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, ApiError> {
    let Path(text) = Path::<String>::from_request_parts(parts, state)
        .await
        .map_err(|_| ApiError::malformed("the path is not UTF-8"))?;
    Ok(text)
}
