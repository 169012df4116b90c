//! What a key may reach of what its owner may: `<area>.read`, `<area>.write`, or everything.

/// The areas of the API that scopes can name.
pub const AREAS: [&str; 30] = [
    "activity",
    "alerting",
    "analytics",
    "api-keys",
    "audit",
    "auth",
    "batch",
    "catalog",
    "cluster",
    "cluster-management",
    "dashboard",
    "events",
    "integrations",
    "jobs",
    "monitoring",
    "notifications",
    "preferences",
    "quotas",
    "realtime",
    "saml",
    "scaling",
    "search",
    "session-templates",
    "sessions",
    "settings",
    "sharing",
    "snapshots",
    "teams",
    "templates",
    "tenant",
];

/// Narrows a key; an operation names its area and whether it changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes(Vec<String>);

impl Scopes {
    pub(super) fn new(scopes: Vec<String>) -> Self {
        Self(scopes)
    }

    /// Whether every one of them exists; else the one that does not.
    pub(super) fn check(scopes: &[String]) -> Result<(), String> {
        let known = |scope: &&String| {
            scope.as_str() == "*"
                || scope
                    .rsplit_once('.')
                    .is_some_and(|(area, act)| AREAS.contains(&area) && matches!(act, "read" | "write"))
        };
        match scopes.iter().find(|scope| !known(scope)) {
            None if scopes.is_empty() => Err("a key without a scope reaches nothing".to_owned()),
            None => Ok(()),
            Some(unknown) => Err(format!("there is no scope {unknown:?}")),
        }
    }

    /// The right to write includes no right to read: a key that only sends reads nothing.
    pub fn allow(&self, area: &str, writes: bool) -> bool {
        let act = if writes { "write" } else { "read" };
        self.0.iter().any(|scope| {
            scope == "*" || scope.rsplit_once('.').is_some_and(|(a, granted)| a == area && granted == act)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(list: &[&str]) -> Scopes {
        Scopes::new(list.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_scope_opens_its_area_for_its_act() {
        let read = scopes(&["jobs.read"]);
        assert!(read.allow("jobs", false) && !read.allow("jobs", true) && !read.allow("audit", false));
        assert!(!scopes(&["jobs.write"]).allow("jobs", false));
        assert!(scopes(&["*"]).allow("anything", true));
        assert!(!scopes(&[]).allow("jobs", false));
    }

    #[test]
    fn unknown_scopes_are_named() {
        let check = |scope: &str| Scopes::check(&[scope.to_owned()]);
        assert!(check("jobs.read").is_ok() && check("*").is_ok() && check("session-templates.write").is_ok());
        assert!(check("jobs").is_err() && check("jobs.delete").is_err() && check("moon.read").is_err());
        assert!(Scopes::check(&[]).is_err());
    }
}
