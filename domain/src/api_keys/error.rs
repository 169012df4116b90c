use streamspace_common::{Classified, ErrorKind};

use crate::identity::{self, Forbidden};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such key")]
    NotFound,
    #[error("there is no such person in this tenant")]
    NoUser,
    #[error("this key works no more")]
    NotActive,
    #[error("this person has a hundred keys that work; revoke one first")]
    Enough,
    #[error("a key of a person is made and rotated by that person")]
    NotYours,
    #[error("the key that asks has no scope {0}, so it gives none")]
    BeyondScopes(String),
    #[error("{field}: {message}")]
    Invalid { field: &'static str, message: String },
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound | Self::NoUser => ErrorKind::NotFound,
            Self::NotActive | Self::Enough => ErrorKind::Conflict,
            Self::NotYours | Self::BeyondScopes(_) => ErrorKind::Forbidden,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Forbidden(error) => error.kind(),
            Self::Identity(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }

    fn field(&self) -> Option<(&str, &str)> {
        match self {
            Self::Invalid { field, message } => Some((field, message)),
            _ => None,
        }
    }
}
