use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamspace_domain::teams;
use utoipa::ToSchema;
use uuid::Uuid;

/// People of the tenant who share sessions and an allowance.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Team {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Uuid>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The caller's, if they are a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<TeamRole>,
}

/// Each may all that the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TeamRole {
    Viewer,
    Member,
    Admin,
    Owner,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TeamMember {
    pub user_id: Uuid,
    pub username: String,
    pub name: String,
    pub email: String,
    pub role: TeamRole,
    /// Whether they can sign in.
    pub active: bool,
    pub joined_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TeamRolePermissions {
    pub role: TeamRole,
    #[schema(example = json!(["team.sessions.view", "team.quota.view"]))]
    pub permissions: Vec<&'static str>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TeamRoleInfo {
    pub role: TeamRole,
    pub description: &'static str,
}

impl From<teams::Team> for Team {
    fn from(team: teams::Team) -> Self {
        Self {
            id: team.id.0,
            name: team.name,
            description: team.description,
            created_by: team.created_by.map(|user| user.0),
            created_at: team.created_at,
            updated_at: team.updated_at,
            role: team.role.map(TeamRole::from),
        }
    }
}

impl From<teams::Member> for TeamMember {
    fn from(member: teams::Member) -> Self {
        Self {
            user_id: member.user.0,
            username: member.username,
            name: member.name,
            email: member.email,
            role: member.role.into(),
            active: member.active,
            joined_at: member.joined_at,
        }
    }
}

impl From<teams::TeamRole> for TeamRole {
    fn from(role: teams::TeamRole) -> Self {
        match role {
            teams::TeamRole::Viewer => Self::Viewer,
            teams::TeamRole::Member => Self::Member,
            teams::TeamRole::Admin => Self::Admin,
            teams::TeamRole::Owner => Self::Owner,
        }
    }
}

impl From<TeamRole> for teams::TeamRole {
    fn from(role: TeamRole) -> Self {
        match role {
            TeamRole::Viewer => Self::Viewer,
            TeamRole::Member => Self::Member,
            TeamRole::Admin => Self::Admin,
            TeamRole::Owner => Self::Owner,
        }
    }
}

impl From<teams::TeamRole> for TeamRolePermissions {
    fn from(role: teams::TeamRole) -> Self {
        Self {
            role: role.into(),
            permissions: role.permissions().map(teams::TeamPermission::as_str).collect(),
        }
    }
}

impl From<teams::TeamRole> for TeamRoleInfo {
    fn from(role: teams::TeamRole) -> Self {
        Self { role: role.into(), description: role.about() }
    }
}
