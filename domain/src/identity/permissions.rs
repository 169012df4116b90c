//! Who may do what: one permission per kind of act, one table that says who has it.

use streamspace_common::{Actor, Role};
use streamspace_queue::Tx;

/// Declares the permissions: what each lets somebody do, how the API spells it, and who has it.
macro_rules! permissions {
    ($($(#[doc = $about:literal])+ $name:ident = $text:literal, $least:expr;)+) => {
        /// What an operation needs. Every operation of the API names one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Permission { $($(#[doc = $about])+ $name),+ }

        impl Permission {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            pub fn least(self) -> Least {
                use Least::{Platform, Role as AtLeast, RoleOrPlatform};
                use Role::{Admin, Operator, User, Viewer};
                match self { $(Self::$name => $least),+ }
            }

            /// As the API spells it: `jobs.cancel`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// What it lets somebody do.
            pub fn about(self) -> &'static str {
                match self { $(Self::$name => concat!($($about),+).trim_ascii()),+ }
            }
        }
    };
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

permissions! {
    /// Reads the jobs that one may see: a person their own, operators every one of the tenant.
    JobsRead = "jobs.read", AtLeast(Viewer);
    /// Cancels a job that one may see.
    JobsCancel = "jobs.cancel", AtLeast(User);
    /// Retries and deletes jobs, cancels by filter, reads figures over all of them.
    JobsManage = "jobs.manage", AtLeast(Operator);
    /// Reads queues and what waits in them.
    QueuesRead = "queues.read", RoleOrPlatform(Operator);
    /// Pauses, resumes, limits: the tenant's share, or for platform administrators the whole queue.
    QueuesControl = "queues.control", RoleOrPlatform(Operator);
    /// Reads which processes run jobs.
    WorkersRead = "workers.read", RoleOrPlatform(Operator);
    /// Drains and resumes a process that all tenants share.
    WorkersControl = "workers.control", Platform;
    /// Reads schedules and when they fired.
    SchedulesRead = "schedules.read", RoleOrPlatform(Operator);
    /// Makes, changes, pauses and runs schedules.
    SchedulesWrite = "schedules.write", RoleOrPlatform(Operator);
    /// Opens a stream whose own permission is checked when it opens.
    StreamsOpen = "streams.open", AtLeast(Viewer);
    /// Makes, suspends and deletes tenants, by `streamspace admin`.
    TenantsManage = "tenants.manage", Platform;
    /// Makes and keeps keys of one's own.
    ApiKeysOwn = "api_keys.own", AtLeast(Viewer);
    /// Makes and keeps keys of the tenant; sees those of others in it, and ends those of whom one may change.
    ApiKeysManage = "api_keys.manage", AtLeast(Admin);
    /// Reads the teams that one may see: a person their own, operators every one of the tenant.
    TeamsRead = "teams.read", AtLeast(Viewer);
    /// Ends one's own membership of a team.
    TeamsLeave = "teams.leave", AtLeast(Viewer);
    /// Makes teams, and changes those in which one's role of the team allows it.
    TeamsWrite = "teams.write", AtLeast(User);
    /// Reads and changes the settings of the tenant.
    SettingsManage = "settings.manage", AtLeast(Admin);
    /// Reads what was changed by whom.
    AuditRead = "audit.read", AtLeast(Admin);
    /// Sets up who else vouches for the tenant's people.
    IdentityProvidersManage = "identity_providers.manage", AtLeast(Admin);
    /// Keeps one's own profile, password, second factor and sign-ins.
    ProfileOwn = "profile.own", AtLeast(Viewer);
    /// Makes, invites, changes and removes people; of admins and owners only owners do.
    UsersManage = "users.manage", AtLeast(Admin);
    /// Reads the tenant's profile.
    TenantRead = "tenant.read", AtLeast(Viewer);
    /// Changes it.
    TenantWrite = "tenant.write", AtLeast(Admin);
}

impl Permission {
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
