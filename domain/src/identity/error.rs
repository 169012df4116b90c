use streamspace_common::{Classified, ErrorKind};
use streamspace_queue::EnqueueError;

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
    #[error("somebody here has this address already")]
    EmailTaken,
    #[error("somebody here has this username already")]
    UsernameTaken,
    #[error("the tenant's last owner who may sign in stays one")]
    LastOwner,
    /// Who may manage admins and owners are owners.
    #[error("this takes the role of an owner")]
    NeedsOwner,
    #[error("{field}: {message}")]
    Invalid { field: &'static str, message: String },
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoTenant | Self::NoUser => ErrorKind::NotFound,
            Self::SlugTaken(_)
            | Self::EmailTaken
            | Self::UsernameTaken
            | Self::LastOwner
            | Self::Inactive => ErrorKind::Conflict,
            Self::NeedsOwner => ErrorKind::Forbidden,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Forbidden(error) => error.kind(),
            Self::Enqueue(error) => error.kind(),
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
