//! Kinds whose jobs do what the rights over jobs do not reach. To stop, repeat or forget one takes the
//! right that asking for it took: a deletion that an admin has stopped is not an operator's to begin again.

use streamspace_common::Actor;
use streamspace_queue::{Job, Tx, inspect::JobRow};

use super::Error;
use crate::identity::{
    self, Permission, Require,
    jobs::{DeleteTenant, DeleteUser},
};

struct Guard {
    kind: &'static str,
    needs: Permission,
    /// Who may depends on what the job is about: it is asked of one job, and those of a filter are left alone.
    one_by_one: bool,
}

const GUARDS: [Guard; 2] = [
    Guard { kind: DeleteUser::KIND, needs: Permission::UsersManage, one_by_one: true },
    Guard { kind: DeleteTenant::KIND, needs: Permission::TenantsManage, one_by_one: false },
];

/// Whether whoever acts may change this job, beyond the right over jobs.
pub(super) async fn require(tx: &mut Tx, job: &JobRow) -> Result<(), Error> {
    let Some(guard) = GUARDS.iter().find(|guard| guard.kind == job.kind) else { return Ok(()) };
    tx.require(guard.needs)?;
    if job.kind == DeleteUser::KIND {
        identity::may_decide_deletion(tx, job).await?;
    }
    Ok(())
}

/// The kinds that somebody's changes by a filter leave alone.
pub(super) fn left_alone(actor: &Actor) -> Vec<String> {
    let left = GUARDS.iter().filter(|guard| guard.one_by_one || !guard.needs.is_held_by(actor));
    left.map(|guard| guard.kind.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use streamspace_common::{Creator, Role, TenantId};

    use super::*;

    #[test]
    fn what_a_filter_leaves_alone_follows_rights() {
        let actor = |role, platform| {
            left_alone(&Actor {
                tenant: TenantId::new(),
                by: Creator::System,
                user: None,
                key: None,
                role,
                platform,
            })
        };
        assert_eq!(actor(Role::Operator, false), [DeleteUser::KIND, DeleteTenant::KIND]);
        assert_eq!(actor(Role::Owner, false), [DeleteUser::KIND, DeleteTenant::KIND]);
        assert_eq!(actor(Role::Owner, true), [DeleteUser::KIND]);
    }
}
