use streamspace_common::{Classified, ErrorKind};
use streamspace_queue::EnqueueError;

use crate::{identity, sign_in};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such link")]
    Unknown,
    #[error("this link was used, or is too old; ask for a new one")]
    Over,
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error(transparent)]
    SignIn(#[from] sign_in::Error),
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown => ErrorKind::NotFound,
            Self::Over => ErrorKind::Gone,
            Self::Identity(error) => error.kind(),
            Self::SignIn(error) => error.kind(),
            Self::Enqueue(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }

    fn field(&self) -> Option<(&str, &str)> {
        match self {
            Self::Identity(error) => error.field(),
            Self::SignIn(error) => error.field(),
            _ => None,
        }
    }
}
