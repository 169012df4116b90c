//! Operations upon one thing, by its id.

use reqwest::Method;
use serde_json::{Value, json};

use super::model::Kind;
use crate::access::{identity_provider, schedule};

pub struct Act {
    pub kind: Kind,
    pub method: Method,
    /// As the table of operations has it.
    pub route: &'static str,
    pub query: &'static str,
    /// Of the body; what changes has this name then.
    pub body: fn(&str) -> Value,
    pub leaves: Leaves,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// The thing, as it is or changed.
    It,
    Nothing,
    /// The thing, which can't act any more; with a job that the answer names, if there is one.
    ItDisabled,
    /// The thing, and a job.
    AJob,
}

impl Act {
    pub fn path(&self, id: &str) -> String {
        let path = self.route.replace("{id}", id).replace("{teamId}", id);
        format!("{}{}", path.replace("{permission}", "team.manage"), self.query)
    }

    pub fn reads(&self) -> bool {
        self.method == Method::GET
    }

    /// As the audit calls it, where that is always the same.
    pub fn audited(&self) -> Option<&'static str> {
        match (self.kind, self.method.as_str(), self.leaves) {
            (Kind::Team, "DELETE", _) => Some("teams.delete"),
            (Kind::Key, "DELETE", _) => Some("api_keys.delete"),
            (Kind::Schedule, "DELETE", _) => Some("schedules.delete"),
            (Kind::Schedule, _, Leaves::AJob) => Some("schedules.run"),
            (Kind::Provider, "DELETE", _) => Some("identity_providers.delete"),
            (Kind::Job, "DELETE", _) => Some("jobs.delete"),
            (Kind::SignIn, "DELETE", _) => Some("sign_ins.end"),
            _ => None,
        }
    }
}

fn nothing(_: &str) -> Value {
    Value::Null
}

fn named(name: &str) -> Value {
    json!({ "name": name })
}

pub fn provider(name: &str) -> Value {
    let mut provider = identity_provider(name);
    for field in ["displayName", "clientId"] {
        provider[field] = name.into();
    }
    provider
}

/// All of them.
pub fn acts() -> Vec<Act> {
    use Kind::{Job, Key, Provider, Schedule, SignIn, Team, User};
    let act = |kind, method, route| Act { kind, method, route, query: "", body: nothing, leaves: Leaves::It };
    let get = |kind, route| act(kind, Method::GET, route);
    let post = |kind, route| act(kind, Method::POST, route);
    let delete = |kind, route| Act { leaves: Leaves::Nothing, ..act(kind, Method::DELETE, route) };
    let with = |method, kind, route, body| Act { body, ..act(kind, method, route) };
    let user = "/api/v1/auth/users/{id}";
    vec![
        get(Team, "/api/v1/teams/{teamId}"),
        get(Team, "/api/v1/teams/{teamId}/members"),
        get(Team, "/api/v1/teams/{teamId}/permissions"),
        get(Team, "/api/v1/teams/{teamId}/role-info"),
        get(Team, "/api/v1/teams/{teamId}/my-permissions"),
        get(Team, "/api/v1/teams/{teamId}/check-permission/{permission}"),
        with(Method::PATCH, Team, "/api/v1/teams/{teamId}", named),
        delete(Team, "/api/v1/teams/{teamId}"),
        get(Key, "/api/v1/api-keys/{id}/usage"),
        post(Key, "/api/v1/api-keys/{id}/revoke"),
        post(Key, "/api/v1/api-keys/{id}/rotate"),
        delete(Key, "/api/v1/api-keys/{id}"),
        get(User, user),
        with(Method::PATCH, User, user, named),
        with(Method::PATCH, User, user, |_| json!({ "active": true, "locked": false })),
        Act { leaves: Leaves::ItDisabled, ..with(Method::PATCH, User, user, |_| json!({ "active": false })) },
        Act { leaves: Leaves::ItDisabled, query: "?purge=true", ..act(User, Method::DELETE, user) },
        get(Schedule, "/api/v1/schedules/{id}"),
        get(Schedule, "/api/v1/schedules/{id}/fires"),
        with(Method::PUT, Schedule, "/api/v1/schedules/{id}", schedule),
        Act { leaves: Leaves::AJob, ..post(Schedule, "/api/v1/schedules/{id}/run") },
        post(Schedule, "/api/v1/schedules/{id}/pause"),
        post(Schedule, "/api/v1/schedules/{id}/resume"),
        delete(Schedule, "/api/v1/schedules/{id}"),
        get(Job, "/api/v1/jobs/{id}"),
        get(Job, "/api/v1/jobs/{id}/events"),
        post(Job, "/api/v1/jobs/{id}/cancel"),
        post(Job, "/api/v1/jobs/{id}/retry"),
        delete(Job, "/api/v1/jobs/{id}"),
        delete(SignIn, "/api/v1/auth/sessions/{id}"),
        with(Method::PUT, Provider, "/api/v1/auth/oidc/providers/{id}", provider),
        delete(Provider, "/api/v1/auth/oidc/providers/{id}"),
    ]
}
