use streamspace_common::{Classified, ErrorKind};

use super::permissions::Forbidden;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such tenant")]
    NoTenant,
    #[error("there is no such person")]
    NoUser,
    #[error("this person may not sign in")]
    Inactive,
    #[error("the slug {0:?} is taken")]
    SlugTaken(String),
    #[error("{field}: {message}")]
    Invalid { field: &'static str, message: String },
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoTenant | Self::NoUser => ErrorKind::NotFound,
            Self::SlugTaken(_) | Self::Inactive => ErrorKind::Conflict,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Forbidden(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }
}
