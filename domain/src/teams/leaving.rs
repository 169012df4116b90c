//! Memberships of somebody who leaves the tenant.

use serde_json::json;
use streamspace_common::{TeamId, UserId};
use streamspace_queue::Tx;

use super::{Error, TeamRole, leaving_store as store};
use crate::audit::{self, Entry};

/// What has become of the teams of somebody who has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Memberships that have ended.
    pub memberships: usize,
    /// Teams that would have lost their last owner who can sign in, and have another.
    pub handed_over: usize,
    /// Teams in which nobody was left.
    pub deleted: usize,
}

/// Ends all memberships of somebody. A team whose last owner they are goes to the heir; without one to
/// the highest of its members, of those the one who is in it for longest, and if nobody else is in it, it
/// goes too.
pub(crate) async fn leave(tx: &mut Tx, user: UserId, heir: Option<UserId>) -> Result<Left, Error> {
    let tenant = tx.tenant();
    let conn = tx.conn().await?;
    // All changes of a team lock its row first; several do it in one order.
    store::lock_teams_of(conn, tenant, user).await?;
    let orphans = store::orphans(conn, tenant, user).await?;
    let (mut owners, mut empty): (Vec<(TeamId, UserId)>, Vec<TeamId>) = (Vec::new(), Vec::new());
    for orphan in orphans {
        match heir.or(orphan.next) {
            Some(next) => owners.push((orphan.team, next)),
            None => empty.push(orphan.team),
        }
    }
    let before = store::make_owners(conn, tenant, &owners).await?;
    let ended = store::delete_memberships(conn, tenant, user).await?;
    store::delete_teams(conn, tenant, &empty).await?;
    for (team, owner, role) in before {
        let entry = match role {
            Some(role) => Entry::new("teams.change_member", "team", team)
                .before(json!({ "user": owner, "role": role }))
                .after(json!({ "user": owner, "role": TeamRole::Owner })),
            None => Entry::new("teams.add_member", "team", team)
                .after(json!({ "user": owner, "role": TeamRole::Owner })),
        };
        audit::record(tx, entry).await?;
    }
    for (team, role) in &ended {
        let left =
            Entry::new("teams.remove_member", "team", team).before(json!({ "user": user, "role": role }));
        audit::record(tx, left).await?;
    }
    for team in &empty {
        audit::record(tx, Entry::new("teams.delete", "team", team)).await?;
    }
    Ok(Left { memberships: ended.len(), handed_over: owners.len(), deleted: empty.len() })
}
