use streamspace_common::{Classified, ErrorKind};

use crate::identity::Forbidden;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such setting")]
    NoSetting,
    /// What is wrong with the value.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSetting => ErrorKind::NotFound,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Forbidden(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }

    fn field(&self) -> Option<(&str, &str)> {
        match self {
            Self::Invalid(detail) => Some(("/value", detail)),
            _ => None,
        }
    }
}
