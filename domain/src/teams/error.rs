use streamspace_common::{Classified, ErrorKind};

use super::{TeamPermission, TeamRole};
use crate::identity::Forbidden;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such team")]
    NoTeam,
    #[error("there is no such member of this team")]
    NoMember,
    #[error("teams have no such permission")]
    NoPermission,
    #[error("this needs the permission {} in the team", .0.as_str())]
    Denied(TeamPermission),
    #[error("the role {} is above the own: nobody grants, changes or ends one", .0.as_str())]
    AboveOwn(TeamRole),
    #[error("this is the team's last owner who can sign in; make somebody else one first")]
    LastOwner,
    #[error("this person is a member already")]
    AlreadyMember,
    #[error("a team needs a person as its owner, and nobody is behind this key")]
    Nobody,
    /// A field of the request, as a JSON pointer, and what is wrong with it.
    #[error("{pointer}: {detail}")]
    Invalid { pointer: &'static str, detail: String },
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoTeam | Self::NoMember | Self::NoPermission => ErrorKind::NotFound,
            Self::Denied(_) | Self::AboveOwn(_) => ErrorKind::Forbidden,
            Self::LastOwner | Self::AlreadyMember | Self::Nobody => ErrorKind::Conflict,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Forbidden(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }

    fn field(&self) -> Option<(&str, &str)> {
        match self {
            Self::Invalid { pointer, detail } => Some((pointer, detail)),
            _ => None,
        }
    }
}
