//! What stands in a path.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::problem::ApiError;

/// The UUID in a path.
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: From<Uuid>> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self(id(&segments::<String, S>(parts, state).await?)?))
    }
}

/// The two UUIDs in a path, in their order.
pub struct IdAndId<T, U>(pub T, pub U);

impl<S: Send + Sync, T: From<Uuid>, U: From<Uuid>> FromRequestParts<S> for IdAndId<T, U> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (first, second) = segments::<(String, String), S>(parts, state).await?;
        Ok(Self(id(&first)?, id(&second)?))
    }
}

/// The UUID in a path, and the name after it.
pub struct IdAndName<T>(pub T, pub String);

impl<S: Send + Sync, T: From<Uuid>> FromRequestParts<S> for IdAndName<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (first, second) = segments::<(String, String), S>(parts, state).await?;
        Ok(Self(id(&first)?, name(second)?))
    }
}

/// The name in a path.
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        name(segments(parts, state).await?).map(Self)
    }
}

fn id<T: From<Uuid>>(text: &str) -> Result<T, ApiError> {
    // The hyphenated form alone: one thing has one address.
    match Uuid::try_parse(text) {
        Ok(id) if text.len() == 36 => Ok(id.into()),
        _ => Err(ApiError::malformed("the id in the path is not a UUID")),
    }
}

const MAX_NAME: usize = 64;

fn name(text: String) -> Result<String, ApiError> {
    if text.chars().any(char::is_control) {
        return Err(ApiError::malformed("the name in the path has a control character"));
    }
    if text.chars().count() > MAX_NAME {
        return Err(ApiError::not_found("no name is this long"));
    }
    Ok(text)
}

async fn segments<T, S>(parts: &mut Parts, state: &S) -> Result<T, ApiError>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    let Path(segments) = Path::<T>::from_request_parts(parts, state)
        .await
        .map_err(|_| ApiError::malformed("the path is not UTF-8"))?;
    Ok(segments)
}
