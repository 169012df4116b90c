use std::time::Duration;

use streamspace_common::{Classified, ErrorKind, SignInId, sealed::OpenError};

use super::passwords::Busy;
use crate::identity::{self, Forbidden};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Whether it is the account, the password or the time is not told.
    #[error("the e-mail address or the password is wrong, or signing in is closed for a while")]
    Refused,
    #[error("this refresh token is not accepted")]
    NoRefresh {
        /// It was used before: the sign-in that this has ended.
        ended: Option<SignInId>,
    },
    #[error("this challenge is not accepted, or too old: sign in anew")]
    NoChallenge,
    #[error("this code is not accepted, or was used: wait for the next one")]
    WrongCode,
    #[error("you have a second factor; switch it off first")]
    HasSecondFactor,
    #[error("setting up a second factor takes a sign-in of the last fifteen minutes: sign in again")]
    NotLately,
    #[error("there is no second factor to switch on: enroll first")]
    NoSecondFactor,
    #[error("this code is not accepted, or was used: sign in anew")]
    NoCode,
    /// It fits in several.
    #[error("this address and password belong to several tenants; name one")]
    TenantRequired { slugs: Vec<String> },
    #[error("too many sign-ins from this address have failed")]
    Slowed { retry_after: Duration },
    #[error(
        "too many sign-ins from this address that named no tenant were tried on other people: name yours"
    )]
    NameTenant { retry_after: Duration },
    #[error("there is no such sign-in")]
    NotFound,
    #[error("{field}: {message}")]
    Invalid { field: &'static str, message: String },
    #[error("there is no key to sign with")]
    NoKey,
    #[error("the key that signs can't be opened: is it another installation's master key?")]
    Sealed(OpenError),
    #[error(transparent)]
    Busy(#[from] Busy),
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
            Self::Refused | Self::WrongCode | Self::NoRefresh { .. } | Self::NoChallenge | Self::NoCode => {
                ErrorKind::Unauthenticated
            }
            Self::NotLately => ErrorKind::Forbidden,
            Self::HasSecondFactor | Self::NoSecondFactor => ErrorKind::Conflict,
            Self::TenantRequired { .. } | Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Slowed { retry_after } | Self::NameTenant { retry_after } => {
                ErrorKind::RateLimited { retry_after: *retry_after }
            }
            Self::NotFound => ErrorKind::NotFound,
            Self::NoKey | Self::Sealed(_) | Self::Busy(Busy::Failed) => ErrorKind::Internal,
            Self::Busy(Busy::Full | Busy::Gone) => ErrorKind::Unavailable,
            Self::Forbidden(error) => error.kind(),
            Self::Identity(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }

    fn field(&self) -> Option<(&str, &str)> {
        match self {
            Self::Invalid { field, message } => Some((field, message)),
            Self::Identity(error) => error.field(),
            _ => None,
        }
    }
}
