//! What groups give.

use std::collections::BTreeMap;

use streamspace_common::{Role, TeamId};

use super::Settings;
use crate::teams::TeamRole;

/// What somebody's groups give them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// `None`: the provider says nothing of roles, and whoever has one keeps it.
    pub role: Option<Role>,
    pub teams: BTreeMap<TeamId, TeamRole>,
}

/// Of several that give a role the highest counts; of none the default.
pub fn given(settings: &Settings, groups: &[&str]) -> Given {
    let fitting = || settings.group_mapping.iter().filter(|mapping| groups.contains(&mapping.group.as_str()));
    let gives_roles = settings.group_mapping.iter().any(|mapping| mapping.role.is_some());
    let highest = fitting().filter_map(|mapping| mapping.role).max().unwrap_or(settings.default_role);
    let mut teams = BTreeMap::new();
    for (team, role) in fitting().filter_map(|mapping| mapping.team_id.zip(mapping.team_role)) {
        let highest = teams.entry(team).or_insert(role);
        *highest = role.max(*highest);
    }
    Given { role: gives_roles.then_some(highest), teams }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oidc::{GroupMapping, model::tests::settings};

    fn role(group: &str, role: Role) -> GroupMapping {
        GroupMapping { group: group.to_owned(), role: Some(role), team_id: None, team_role: None }
    }

    fn team(group: &str, team: TeamId, role: TeamRole) -> GroupMapping {
        GroupMapping { group: group.to_owned(), role: None, team_id: Some(team), team_role: Some(role) }
    }

    #[test]
    fn the_highest_of_several_counts_and_of_none_the_default() {
        let (one, other) = (TeamId::new(), TeamId::new());
        let group_mapping = vec![
            role("staff", Role::User),
            role("ops", Role::Operator),
            team("staff", one, TeamRole::Viewer),
            team("ops", one, TeamRole::Admin),
            team("ops", other, TeamRole::Member),
        ];
        let settings = Settings { group_mapping, ..settings() };
        let both = given(&settings, &["ops", "staff", "others"]);
        assert_eq!(both.role, Some(Role::Operator));
        assert_eq!(both.teams, BTreeMap::from([(one, TeamRole::Admin), (other, TeamRole::Member)]));
        assert_eq!(given(&settings, &["staff"]).role, Some(Role::User));
        let none = given(&settings, &["Staff", "staf"]);
        assert_eq!((none.role, none.teams.len()), (Some(Role::Viewer), 0));
    }

    #[test]
    fn a_provider_that_gives_no_roles_takes_none() {
        let settings =
            Settings { group_mapping: vec![team("a", TeamId::new(), TeamRole::Member)], ..settings() };
        assert_eq!(given(&settings, &["b"]).role, None);
    }
}
