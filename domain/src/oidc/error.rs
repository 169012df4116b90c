use streamspace_common::{Classified, ErrorKind, sealed::OpenError};

use crate::{
    identity::{self, Forbidden},
    sign_in, teams,
};

/// What a provider said that cannot be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrue {
    #[error("its discovery document cannot be read")]
    Document,
    #[error("its discovery document names another issuer than the provider's URL")]
    OtherIssuer,
    #[error("its discovery document names an endpoint that is not https")]
    Endpoint,
    #[error("its answer names another issuer, or none")]
    Answer,
    #[error("the ID token is no signed token")]
    Token,
    #[error("the ID token is signed by an algorithm that the provider does not announce, or none")]
    Algorithm,
    #[error("the ID token is signed by a key that the provider does not publish")]
    UnknownKey,
    #[error("the signature of the ID token is wrong")]
    Signature,
    #[error("the ID token is from another issuer")]
    Issuer,
    #[error("the ID token is for another client")]
    Audience,
    #[error("the ID token has expired")]
    Expired,
    #[error("the ID token is from the future")]
    Early,
    #[error("the ID token belongs to another sign-in")]
    Nonce,
    #[error("the ID token belongs to another access token")]
    AccessToken,
    #[error("the ID token names nobody")]
    Subject,
    #[error("its user information is about somebody else, or does not say about whom")]
    OtherSubject,
}

/// Why a provider gave no answer that can be used. Nothing of an answer's text is in it but the
/// standard's short codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("its address is private; security.allowed_cidrs names those that may be reached")]
    Private,
    #[error("its answer is larger than 1 MiB")]
    TooLarge,
    #[error("it answers with the status {0}")]
    Status(u16),
    /// OAuth's own word for it, such as `invalid_client`.
    #[error("it refuses: {0}")]
    Refused(String),
    #[error("its answer cannot be read")]
    Unreadable,
    #[error(transparent)]
    Untrue(#[from] Untrue),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such identity provider")]
    NoProvider,
    #[error("an identity provider of this installation has this name already")]
    NameTaken,
    #[error("a tenant has at most {0} identity providers")]
    TooMany(i64),
    #[error("{pointer}: {detail}")]
    Invalid { pointer: String, detail: String },
    /// Not by this browser, or too long ago, or it was answered before.
    #[error("this sign-in was not begun in this browser, or it is over; begin it again")]
    Stale,
    /// OAuth's own word for it, such as `access_denied`.
    #[error("the identity provider did not sign you in: {0}")]
    Declined(String),
    #[error("the identity provider gives no answer that can be used: {0}")]
    Unanswered(#[from] Unanswered),
    #[error("the identity provider says nothing of a tenant here that you belong to")]
    NoTenant,
    #[error("the identity provider says no e-mail address of yours, without which nobody gets an account")]
    NoEmail,
    #[error("you are in more groups than the identity provider tells; it should tell those that matter here")]
    ManyGroups,
    /// There is an account with this address, and nobody vouches that it is the same person's; or there is
    /// one whose person has more to lose by now than the provider's word may open.
    #[error(
        "there is an account of yours that this identity does not open yet; sign in to it with its password, \
         then link it: open /api/v1/auth/oidc/{provider}/login?link=true in the same browser"
    )]
    LinkRequired { provider: String },
    #[error("linking takes a sign-in in this browser that is no older than ten minutes")]
    NotFresh,
    #[error("this identity is another account's")]
    LinkedToAnother,
    #[error("this account may not sign in")]
    Disabled,
    /// Somebody else did the same at the same moment.
    #[error("somebody signed in as the same person at the same moment; try again")]
    Again,
    #[error("the provider's secret can't be opened: is it another installation's master key?")]
    Sealed(OpenError),
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error(transparent)]
    SignIn(#[from] sign_in::Error),
    #[error(transparent)]
    Team(#[from] teams::Error),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl From<Untrue> for Error {
    fn from(lie: Untrue) -> Self {
        Self::Unanswered(lie.into())
    }
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoProvider => ErrorKind::NotFound,
            Self::NameTaken
            | Self::TooMany(_)
            | Self::LinkRequired { .. }
            | Self::LinkedToAnother
            | Self::Again => ErrorKind::Conflict,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Stale | Self::NotFresh => ErrorKind::Unauthenticated,
            Self::Declined(_) | Self::NoTenant | Self::NoEmail | Self::ManyGroups | Self::Disabled => {
                ErrorKind::Forbidden
            }
            Self::Unanswered(Unanswered::Untrue(_)) => ErrorKind::Forbidden,
            Self::Unanswered(_) => ErrorKind::Unavailable,
            Self::Sealed(_) => ErrorKind::Internal,
            Self::Forbidden(error) => error.kind(),
            Self::Identity(error) => error.kind(),
            Self::SignIn(error) => error.kind(),
            Self::Team(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }

    fn field(&self) -> Option<(&str, &str)> {
        match self {
            Self::Invalid { pointer, detail } => Some((pointer, detail)),
            Self::Identity(error) => error.field(),
            _ => None,
        }
    }
}
