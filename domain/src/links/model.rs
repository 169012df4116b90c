use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamspace_common::{Role, Secret, TenantId, UserId};

/// What a link is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Choosing a new password.
    Reset,
    /// Choosing the first one.
    Invitation,
    /// Showing that an address is one's own.
    Email,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Purpose {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Invitation => "invitation",
            Self::Email => "email",
        }
    }

    pub(super) fn lifetime(self) -> Duration {
        match self {
            Self::Reset => HOUR,
            Self::Invitation | Self::Email => HOUR * 24 * 7,
        }
    }

    /// The page of the web UI that it leads to.
    fn page(self) -> &'static str {
        match self {
            Self::Reset => "reset-password",
            Self::Invitation => "accept-invitation",
            Self::Email => "verify-email",
        }
    }

    /// The secret stands behind the `#`: browsers send that to no server and no other site.
    pub(super) fn url(self, public_url: &str, secret: &Secret<String>) -> Secret<String> {
        Secret::new(format!("{public_url}/{}#token={}", self.page(), secret.expose()))
    }
}

/// Whom a link is for.
#[derive(Clone, Debug)]
pub(super) struct Whom {
    pub tenant: TenantId,
    pub user: UserId,
    /// Where it is sent.
    pub email: String,
    pub tenant_name: String,
}

/// Somebody, as a job that mails them a link finds them; they are active, and so is the tenant.
pub(super) struct Person {
    pub whom: Whom,
    pub email_verified: bool,
    /// There is no way in yet.
    pub waits: bool,
}

/// The tenant and the person of whom a job is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ids {
    pub tenant: TenantId,
    pub user: UserId,
}

/// What whoever has the link of an invitation is told.
#[derive(Clone, Debug)]
pub struct Invitation {
    pub tenant_name: String,
    pub email: String,
    pub name: String,
    pub role: Role,
    pub expires_at: Timestamp,
}

/// Somebody to invite.
#[derive(Clone, Debug)]
pub struct NewInvitation {
    pub email: String,
    /// The address until they say otherwise.
    pub name: Option<String>,
    /// From the address when absent.
    pub username: Option<String>,
    pub role: Role,
}

/// What somebody who accepts says.
#[derive(Clone, Debug)]
pub struct Acceptance {
    /// `None`: as the invitation has it.
    pub name: Option<String>,
    pub password: Secret<String>,
}
