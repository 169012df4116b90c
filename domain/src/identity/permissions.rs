//! Who may do what: one permission per kind of act, one table that says who has it.

use streamspace_common::{Actor, Role};
use streamspace_queue::Tx;

/// What an operation needs. Every operation of the API names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Reads the jobs that one may see: a person their own, operators every one of the tenant.
    JobsRead,
    /// Cancels a job that one may see.
    JobsCancel,
    /// Retries and deletes jobs, cancels by filter, reads figures over all of them.
    JobsManage,
    QueuesRead,
    /// Pauses, resumes, limits: the tenant's share, or for platform administrators the whole queue.
    QueuesControl,
    WorkersRead,
    /// Drains and resumes a process that all tenants share.
    WorkersControl,
    SchedulesRead,
    SchedulesWrite,
    /// Opens a stream whose own permission is checked when it opens.
    StreamsOpen,
    TenantsManage,
    /// Makes and keeps keys of one's own.
    ApiKeysOwn,
    /// Makes and keeps keys of the tenant; sees and revokes those of others in it.
    ApiKeysManage,
    /// Reads the teams that one may see: a person their own, operators every one of the tenant.
    TeamsRead,
    /// Ends one's own membership of a team.
    TeamsLeave,
    /// Makes teams, and changes those in which one's role of the team allows it.
    TeamsWrite,
    /// Reads and changes the settings of the tenant.
    SettingsManage,
    /// Reads what was changed by whom.
    AuditRead,
    /// Sets up who else vouches for the tenant's people.
    IdentityProvidersManage,
    /// Keeps one's own profile, password, second factor and sign-ins.
    ProfileOwn,
    /// Makes, invites, changes and removes people; of admins and owners only owners do.
    UsersManage,
    /// Reads the tenant's profile.
    TenantRead,
    /// Changes it.
    TenantWrite,
}

/// Who has a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// This role in the tenant, and those above it.
    Role(Role),
    /// The same, or a platform administrator of any role: it concerns the installation, of which a
    /// role reaches the tenant's share.
    RoleOrPlatform(Role),
    /// Platform administrators alone.
    Platform,
}

impl Permission {
    pub const ALL: [Self; 23] = [
        Self::JobsRead,
        Self::JobsCancel,
        Self::JobsManage,
        Self::QueuesRead,
        Self::QueuesControl,
        Self::WorkersRead,
        Self::WorkersControl,
        Self::SchedulesRead,
        Self::SchedulesWrite,
        Self::StreamsOpen,
        Self::TenantsManage,
        Self::ApiKeysOwn,
        Self::ApiKeysManage,
        Self::TeamsRead,
        Self::TeamsLeave,
        Self::TeamsWrite,
        Self::SettingsManage,
        Self::AuditRead,
        Self::ProfileOwn,
        Self::UsersManage,
        Self::TenantRead,
        Self::TenantWrite,
        Self::IdentityProvidersManage,
    ];

    /// The table.
    pub fn least(self) -> Least {
        use Least::{Platform, Role as AtLeast, RoleOrPlatform};
        match self {
            Self::JobsRead
            | Self::StreamsOpen
            | Self::ApiKeysOwn
            | Self::TeamsRead
            | Self::TeamsLeave
            | Self::ProfileOwn
            | Self::TenantRead => AtLeast(Role::Viewer),
            Self::JobsCancel | Self::TeamsWrite => AtLeast(Role::User),
            Self::JobsManage => AtLeast(Role::Operator),
            Self::QueuesRead
            | Self::QueuesControl
            | Self::WorkersRead
            | Self::SchedulesRead
            | Self::SchedulesWrite => RoleOrPlatform(Role::Operator),
            Self::ApiKeysManage
            | Self::SettingsManage
            | Self::AuditRead
            | Self::IdentityProvidersManage
            | Self::UsersManage
            | Self::TenantWrite => AtLeast(Role::Admin),
            Self::WorkersControl | Self::TenantsManage => Platform,
        }
    }

    /// As the API spells it: `jobs.cancel`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobsRead => "jobs.read",
            Self::JobsCancel => "jobs.cancel",
            Self::JobsManage => "jobs.manage",
            Self::QueuesRead => "queues.read",
            Self::QueuesControl => "queues.control",
            Self::WorkersRead => "workers.read",
            Self::WorkersControl => "workers.control",
            Self::SchedulesRead => "schedules.read",
            Self::SchedulesWrite => "schedules.write",
            Self::StreamsOpen => "streams.open",
            Self::TenantsManage => "tenants.manage",
            Self::ApiKeysOwn => "api_keys.own",
            Self::ApiKeysManage => "api_keys.manage",
            Self::TeamsRead => "teams.read",
            Self::TeamsLeave => "teams.leave",
            Self::TeamsWrite => "teams.write",
            Self::SettingsManage => "settings.manage",
            Self::AuditRead => "audit.read",
            Self::IdentityProvidersManage => "identity_providers.manage",
            Self::ProfileOwn => "profile.own",
            Self::UsersManage => "users.manage",
            Self::TenantRead => "tenant.read",
            Self::TenantWrite => "tenant.write",
        }
    }

    pub fn is_held_by(self, actor: &Actor) -> bool {
        match self.least() {
            Least::Role(role) => actor.role >= role,
            Least::RoleOrPlatform(role) => actor.platform || actor.role >= role,
            Least::Platform => actor.platform,
        }
    }
}

/// Visible, but not permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this needs the permission {}", .0.as_str())]
pub struct Forbidden(pub Permission);

impl streamspace_common::Classified for Forbidden {
    fn kind(&self) -> streamspace_common::ErrorKind {
        streamspace_common::ErrorKind::Forbidden
    }
}

/// Whoever acts, asked for a right.
pub trait Require {
    fn require(&self, permission: Permission) -> Result<(), Forbidden>;
}

impl Require for Actor {
    fn require(&self, permission: Permission) -> Result<(), Forbidden> {
        if permission.is_held_by(self) { Ok(()) } else { Err(Forbidden(permission)) }
    }
}

impl Require for Tx {
    fn require(&self, permission: Permission) -> Result<(), Forbidden> {
        self.actor().require(permission)
    }
}

#[cfg(test)]
mod tests {
    use streamspace_common::{Creator, PLATFORM, TenantId};

    use super::*;

    fn actor(role: Role, platform: bool) -> Actor {
        Actor { tenant: TenantId::new(), by: Creator::System, user: None, key: None, role, platform }
    }

    #[test]
    fn a_role_has_what_those_before_it_have() {
        for permission in Permission::ALL {
            let held: Vec<bool> =
                Role::ALL.iter().map(|role| permission.is_held_by(&actor(*role, false))).collect();
            assert!(held.is_sorted(), "{permission:?} is lost on the way up: {held:?}");
        }
    }

    #[test]
    fn an_owner_does_not_reach_what_all_tenants_share() {
        let owner = actor(Role::Owner, false);
        assert_eq!(owner.require(Permission::WorkersControl), Err(Forbidden(Permission::WorkersControl)));
        assert_eq!(owner.require(Permission::TenantsManage), Err(Forbidden(Permission::TenantsManage)));
        assert!(owner.require(Permission::QueuesControl).is_ok());
    }

    #[test]
    fn the_platform_does_not_make_an_operator_of_a_viewer() {
        let viewer = actor(Role::Viewer, true);
        assert!(viewer.require(Permission::WorkersControl).is_ok());
        assert!(viewer.require(Permission::QueuesControl).is_ok());
        assert!(viewer.require(Permission::JobsManage).is_err());
        assert!(Actor::system(PLATFORM).require(Permission::TenantsManage).is_ok());
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<_> = Permission::ALL.iter().map(|permission| permission.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Permission::ALL.len());
    }
}
