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

    /// Reaches all that its owner may.
    pub fn all() -> Self {
        Self(vec!["*".to_owned()])
    }

    /// The first of these that reaches further: nobody gives on more than they came with.
    pub fn lacking<'a>(&self, scopes: &'a [String]) -> Option<&'a str> {
        let has = |scope: &String| self.0.iter().any(|own| own == "*" || own == scope);
        scopes.iter().find(|scope| !has(scope)).map(String::as_str)
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
    fn a_narrow_key_gives_nothing_wider_on() {
        let narrow = scopes(&["jobs.read", "audit.read"]);
        let given = |list: &[&str]| {
            let list: Vec<_> = list.iter().map(ToString::to_string).collect();
            narrow.lacking(&list).map(str::to_owned)
        };
        assert_eq!(given(&["jobs.read"]), None);
        assert_eq!(given(&["jobs.read", "jobs.write"]).as_deref(), Some("jobs.write"));
        assert_eq!(given(&["*"]).as_deref(), Some("*"));
        assert_eq!(Scopes::all().lacking(&["*".to_owned()]), None);
    }

    #[test]
    fn unknown_scopes_are_named() {
        let check = |scope: &str| Scopes::check(&[scope.to_owned()]);
        assert!(check("jobs.read").is_ok() && check("*").is_ok() && check("session-templates.write").is_ok());
        assert!(check("jobs").is_err() && check("jobs.delete").is_err() && check("moon.read").is_err());
        assert!(Scopes::check(&[]).is_err());
    }
}
