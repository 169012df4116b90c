use streamspace_common::{Classified, ErrorKind, JobId};
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
    #[error(
        "nobody opens their own account that failures have closed: another administrator does, or a new password by mail"
    )]
    OwnLock,
    /// Who may manage admins and owners are owners.
    #[error("this takes the role of an owner")]
    NeedsOwner,
    #[error("platform administrators are changed by platform administrators")]
    NeedsPlatform,
    #[error("this person is being deleted; cancel the job {0} first")]
    BeingDeleted(JobId),
    /// They could when the deletion was asked for.
    #[error(
        "whoever was to get what this person owns is no more, is disabled or a viewer; delete again with another"
    )]
    NoHeir,
    #[error("this tenant is to be deleted; undelete it first")]
    ToBeDeleted,
    #[error("this tenant is not to be deleted")]
    NotToBeDeleted,
    #[error("the deletion of this tenant has begun, and some of it is gone")]
    DeletionBegan,
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
            | Self::OwnLock
            | Self::Inactive
            | Self::BeingDeleted(_)
            | Self::ToBeDeleted
            | Self::NotToBeDeleted
            | Self::DeletionBegan => ErrorKind::Conflict,
            Self::NeedsOwner | Self::NeedsPlatform => ErrorKind::Forbidden,
            // A job that fails of it is not tried again.
            Self::Invalid { .. } | Self::NoHeir => ErrorKind::Invalid,
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
