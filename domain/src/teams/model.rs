//! Teams, their roles, and the one table of what each role may.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamspace_common::{Actor, Role, TeamId, UserId};

use super::Error;

/// A role in a team; each may all that the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TeamRole {
    Viewer,
    Member,
    Admin,
    Owner,
}

/// What a role of a team allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TeamPermission {
    /// Changes what the team is called, and deletes it.
    Manage,
    /// Adds and removes people and changes their roles, none above one's own.
    MembersManage,
    SessionsCreate,
    SessionsView,
    SessionsUpdate,
    SessionsDelete,
    SessionsConnect,
    /// Sees limits and usage.
    QuotaView,
    QuotaManage,
}

impl TeamPermission {
    pub const ALL: [Self; 9] = [
        Self::Manage,
        Self::MembersManage,
        Self::SessionsCreate,
        Self::SessionsView,
        Self::SessionsUpdate,
        Self::SessionsDelete,
        Self::SessionsConnect,
        Self::QuotaView,
        Self::QuotaManage,
    ];

    /// The table.
    pub fn least(self) -> TeamRole {
        match self {
            Self::SessionsView | Self::QuotaView => TeamRole::Viewer,
            Self::SessionsCreate | Self::SessionsConnect => TeamRole::Member,
            Self::MembersManage | Self::SessionsUpdate | Self::SessionsDelete => TeamRole::Admin,
            Self::Manage | Self::QuotaManage => TeamRole::Owner,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manage => "team.manage",
            Self::MembersManage => "team.members.manage",
            Self::SessionsCreate => "team.sessions.create",
            Self::SessionsView => "team.sessions.view",
            Self::SessionsUpdate => "team.sessions.update",
            Self::SessionsDelete => "team.sessions.delete",
            Self::SessionsConnect => "team.sessions.connect",
            Self::QuotaView => "team.quota.view",
            Self::QuotaManage => "team.quota.manage",
        }
    }
}

impl std::str::FromStr for TeamPermission {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == text).ok_or(Error::NoPermission)
    }
}

impl TeamRole {
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Member, Self::Admin, Self::Owner];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// What it is for, in a sentence.
    pub fn about(self) -> &'static str {
        match self {
            Self::Viewer => "Sees the team's sessions, its limits and its usage.",
            Self::Member => "Also creates sessions of the team and connects to them.",
            Self::Admin => "Also changes and deletes the team's sessions, and says who belongs to it.",
            Self::Owner => "Also changes the team's limits and the team itself, and deletes it.",
        }
    }

    pub fn allows(self, permission: TeamPermission) -> bool {
        self >= permission.least()
    }

    pub fn permissions(self) -> impl Iterator<Item = TeamPermission> {
        TeamPermission::ALL.into_iter().filter(move |permission| self.allows(*permission))
    }

    pub(super) fn require(self, permission: TeamPermission) -> Result<(), Error> {
        if self.allows(permission) { Ok(()) } else { Err(Error::Denied(permission)) }
    }
}

impl std::str::FromStr for TeamRole {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("no role {text:?}; there are viewer, member, admin, owner"))
    }
}

/// Whose role's rights somebody has in a team, given the role they have as a member; `None`: they do
/// not see it. Admins of the tenant have an owner's, operators see, and a viewer of the tenant acts in
/// no team.
pub(super) fn standing(actor: &Actor, member: Option<TeamRole>) -> Option<TeamRole> {
    match actor.role {
        Role::Admin | Role::Owner => Some(TeamRole::Owner),
        Role::Operator => Some(member.unwrap_or(TeamRole::Viewer)),
        Role::User => member,
        Role::Viewer => member.map(|_| TeamRole::Viewer),
    }
}

#[derive(Clone, Debug)]
pub struct Team {
    pub id: TeamId,
    pub name: String,
    pub description: String,
    pub created_by: Option<UserId>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The reader's own role, if they are a member.
    pub role: Option<TeamRole>,
}

#[derive(Clone, Debug)]
pub struct Member {
    pub user: UserId,
    pub username: String,
    pub name: String,
    pub email: String,
    /// Whether they can sign in.
    pub active: bool,
    pub role: TeamRole,
    pub joined_at: Timestamp,
}

#[derive(Clone, Debug)]
pub struct NewTeam {
    pub name: String,
    pub description: String,
}

/// What is absent stays.
#[derive(Clone, Debug, Default)]
pub struct ChangeTeam {
    pub name: Option<String>,
    pub description: Option<String>,
}

/// Whom to add: they must be able to sign in to the tenant.
#[derive(Clone, Debug)]
pub enum Whom {
    User(UserId),
    Email(String),
}

pub const MAX_NAME: usize = 200;
pub const MAX_DESCRIPTION: usize = 2000;

pub(super) fn check(team: &NewTeam) -> Result<(), Error> {
    let invalid = |pointer, most| Error::Invalid { pointer, detail: format!("at most {most} characters") };
    if team.name.trim().is_empty() {
        return Err(Error::Invalid { pointer: "/name", detail: "must not be empty".to_owned() });
    }
    if team.name.chars().count() > MAX_NAME {
        return Err(invalid("/name", MAX_NAME));
    }
    if team.description.chars().count() > MAX_DESCRIPTION {
        return Err(invalid("/description", MAX_DESCRIPTION));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use streamspace_common::{Creator, TenantId};

    use super::*;

    #[test]
    fn the_table_is_the_published_one() {
        let of = |role: TeamRole| role.permissions().map(TeamPermission::as_str).collect::<Vec<_>>();
        assert_eq!(of(TeamRole::Viewer), ["team.sessions.view", "team.quota.view"]);
        assert_eq!(
            of(TeamRole::Member),
            ["team.sessions.create", "team.sessions.view", "team.sessions.connect", "team.quota.view"]
        );
        assert_eq!(
            of(TeamRole::Admin),
            [
                "team.members.manage",
                "team.sessions.create",
                "team.sessions.view",
                "team.sessions.update",
                "team.sessions.delete",
                "team.sessions.connect",
                "team.quota.view",
            ]
        );
        assert_eq!(of(TeamRole::Owner), TeamPermission::ALL.map(TeamPermission::as_str));
    }

    #[test]
    fn the_tenants_role_decides_beside_the_teams() {
        let stands = |role, member| {
            let tenant = TenantId::new();
            let actor = Actor { tenant, by: Creator::System, user: None, key: None, role, platform: false };
            standing(&actor, member)
        };
        for member in [None, Some(TeamRole::Viewer), Some(TeamRole::Owner)] {
            assert_eq!(stands(Role::Admin, member), Some(TeamRole::Owner));
            assert_eq!(stands(Role::User, member), member);
            assert_eq!(stands(Role::Viewer, member), member.map(|_| TeamRole::Viewer));
        }
        assert_eq!(stands(Role::Operator, None), Some(TeamRole::Viewer));
        assert_eq!(stands(Role::Operator, Some(TeamRole::Admin)), Some(TeamRole::Admin));
    }
}
