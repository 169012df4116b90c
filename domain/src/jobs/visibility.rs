use streamspace_common::{Actor, Role};
use streamspace_queue::inspect::Scope;

/// The jobs that somebody may see.
pub fn scope(actor: &Actor) -> Scope {
    if actor.platform {
        return Scope::Installation;
    }
    if actor.role >= Role::Operator {
        return Scope::Tenant(actor.tenant);
    }
    match (actor.user, actor.by.columns().1) {
        (Some(user), _) => Scope::User(actor.tenant, user),
        // A key of the tenant is no person: it sees what it made.
        (None, Some(credential)) => Scope::Creator(actor.tenant, credential),
        (None, None) => Scope::Creator(actor.tenant, uuid::Uuid::nil()),
    }
}

/// The jobs that figures about the installation count: the tenant's, for platform administrators all.
pub(super) fn figures(actor: &Actor) -> Scope {
    if actor.platform { Scope::Installation } else { Scope::Tenant(actor.tenant) }
}

#[cfg(test)]
mod tests {
    use streamspace_common::{ApiKeyId, Creator, TenantId, UserId};

    use super::*;

    #[test]
    fn roles_decide_how_far_somebody_sees() {
        let (tenant, user, key) = (TenantId::new(), UserId::new(), ApiKeyId::new());
        let of = |role, user, platform| {
            scope(&Actor { tenant, by: Creator::ApiKey(key), user, key: None, role, platform })
        };
        for role in [Role::Viewer, Role::User] {
            assert_eq!(of(role, Some(user), false), Scope::User(tenant, user));
            assert_eq!(of(role, None, false), Scope::Creator(tenant, key.0));
        }
        for role in [Role::Operator, Role::Admin, Role::Owner] {
            assert_eq!(of(role, Some(user), false), Scope::Tenant(tenant));
        }
        assert_eq!(of(Role::Viewer, Some(user), true), Scope::Installation);
    }
}
