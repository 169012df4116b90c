use streamspace_common::{Classified, ErrorKind};

use crate::identity::{self, Forbidden};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such person in this tenant")]
    NoUser,
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
            Self::NoUser => ErrorKind::NotFound,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Forbidden(error) => error.kind(),
            Self::Identity(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }
}
