//! Who acts, and with what rights.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{ApiKeyId, JobId, PLATFORM, ScheduleId, TenantId, UserId};

/// A role in a tenant; each may all that the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Viewer,
    User,
    Operator,
    Admin,
    Owner,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Viewer, Self::User, Self::Operator, Self::Admin, Self::Owner];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("no role {text:?}; there are viewer, user, operator, admin, owner"))
    }
}

/// What made a row or a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "id")]
pub enum Creator {
    User(UserId),
    ApiKey(ApiKeyId),
    Schedule(ScheduleId),
    Job(JobId),
    System,
}

impl Creator {
    /// The two columns that store it.
    pub fn columns(self) -> (&'static str, Option<Uuid>) {
        match self {
            Self::User(id) => ("user", Some(id.0)),
            Self::ApiKey(id) => ("api_key", Some(id.0)),
            Self::Schedule(id) => ("schedule", Some(id.0)),
            Self::Job(id) => ("job", Some(id.0)),
            Self::System => ("system", None),
        }
    }

    pub fn from_columns(kind: &str, id: Option<Uuid>) -> Self {
        match (kind, id) {
            ("user", Some(id)) => Self::User(id.into()),
            ("api_key", Some(id)) => Self::ApiKey(id.into()),
            ("schedule", Some(id)) => Self::Schedule(id.into()),
            ("job", Some(id)) => Self::Job(id.into()),
            _ => Self::System,
        }
    }
}

/// Whoever a transaction acts for. Its tenant bounds everything that the transaction can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub tenant: TenantId,
    /// The credential or cause.
    pub by: Creator,
    /// The person behind it, if there is one: their jobs are theirs to see.
    pub user: Option<UserId>,
    /// The tenant's key behind it, when no person is.
    pub key: Option<ApiKeyId>,
    pub role: Role,
    /// A platform administrator: sees and changes the installation as a whole.
    pub platform: bool,
}

impl Actor {
    /// The installation itself, acting within `tenant`: start-up, maintenance, schedules.
    pub fn system(tenant: TenantId) -> Self {
        Self {
            tenant,
            by: Creator::System,
            user: None,
            key: None,
            role: Role::Owner,
            platform: tenant == PLATFORM,
        }
    }
}
