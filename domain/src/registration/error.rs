use streamspace_common::{Classified, ErrorKind};

use crate::{api_keys, identity, sign_in};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("tenants are made by those who operate this installation")]
    Closed,
    /// Unknown, used, over, or for another address: that is not told apart.
    #[error("this takes an invitation that is yours, and was neither used nor is over")]
    NotInvited,
    #[error("{field}: {message}")]
    Invalid { field: &'static str, message: String },
    #[error(transparent)]
    Forbidden(#[from] identity::Forbidden),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error(transparent)]
    Key(#[from] api_keys::Error),
    #[error(transparent)]
    SignIn(#[from] sign_in::Error),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Closed | Self::NotInvited => ErrorKind::Forbidden,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Forbidden(error) => error.kind(),
            Self::Identity(error) => error.kind(),
            Self::Key(error) => error.kind(),
            Self::SignIn(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }

    fn field(&self) -> Option<(&str, &str)> {
        match self {
            Self::Invalid { field, message } => Some((field, message)),
            Self::Identity(error) => error.field(),
            Self::SignIn(error) => error.field(),
            _ => None,
        }
    }
}
