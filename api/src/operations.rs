//! Every operation there is, and what it needs: one table.

use http::Method;
use streamspace_domain::identity::Permission;

/// One operation: where it is, and what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub method: &'static str,
    pub path: &'static str,
    pub access: Access,
    /// It stays open, or waits as long as it is asked to, and a ticket opens it.
    pub streams: bool,
    /// A person's browser goes there: one that nobody is signed in at is shown where to sign in, in a
    /// refusal's place.
    pub page: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To everybody, counted against the limit of the address that asks.
    Public,
    /// To everybody as often as they like: balancers ask for health, and documents are at hand.
    Unlimited,
    Needs {
        permission: Permission,
        /// The area that a key's scopes must open; `None` where the operation only passes on rights
        /// that are checked when they are used.
        area: Option<&'static str>,
    },
}

const fn needs(
    method: &'static str,
    path: &'static str,
    area: Option<&'static str>,
    permission: Permission,
) -> Operation {
    Operation { method, path, access: Access::Needs { permission, area }, streams: false, page: false }
}

const fn jobs(method: &'static str, path: &'static str, permission: Permission) -> Operation {
    needs(method, path, Some("jobs"), permission)
}

const fn teams(method: &'static str, path: &'static str, permission: Permission) -> Operation {
    needs(method, path, Some("teams"), permission)
}

const fn settings(method: &'static str, path: &'static str) -> Operation {
    needs(method, path, Some("settings"), Permission::SettingsManage)
}

const fn keys(method: &'static str, path: &'static str) -> Operation {
    needs(method, path, Some("api-keys"), Permission::ApiKeysOwn)
}

const fn auth(method: &'static str, path: &'static str, permission: Permission) -> Operation {
    needs(method, path, Some("auth"), permission)
}

const fn public(path: &'static str) -> Operation {
    open("GET", path)
}

const fn open(method: &'static str, path: &'static str) -> Operation {
    Operation { method, path, access: Access::Public, streams: false, page: false }
}

const fn unlimited(path: &'static str) -> Operation {
    Operation { access: Access::Unlimited, ..public(path) }
}

const fn stream(path: &'static str, area: &'static str, permission: Permission) -> Operation {
    Operation { streams: true, ..needs("GET", path, Some(area), permission) }
}

const fn page(path: &'static str, permission: Permission) -> Operation {
    Operation { page: true, ..auth("GET", path, permission) }
}

/// Every operation there is. One that is missing here is closed to everybody.
pub const OPERATIONS: &[Operation] = &[
    unlimited("/"),
    unlimited("/health"),
    unlimited("/api/openapi.json"),
    unlimited("/api/docs"),
    unlimited("/api/docs/"),
    unlimited("/api/docs/{*rest}"),
    public("/.well-known/jwks.json"),
    open("POST", "/api/v1/auth/login"),
    open("POST", "/api/v1/auth/refresh"),
    unlimited("/api/v1/auth/health"),
    open("POST", "/api/v1/auth/password-reset/request"),
    open("POST", "/api/v1/auth/password-reset/confirm"),
    open("POST", "/api/v1/auth/email/verify"),
    auth("POST", "/api/v1/auth/invitations", Permission::UsersManage),
    public("/api/v1/auth/invitations/{token}"),
    open("POST", "/api/v1/auth/invitations/{token}/accept"),
    public("/api/v1/auth/oidc/providers"),
    public("/api/v1/auth/oidc/{provider}/login"),
    public("/api/v1/auth/oidc/{provider}/callback"),
    auth("POST", "/api/v1/auth/oidc/providers", Permission::IdentityProvidersManage),
    auth("PUT", "/api/v1/auth/oidc/providers/{id}", Permission::IdentityProvidersManage),
    auth("DELETE", "/api/v1/auth/oidc/providers/{id}", Permission::IdentityProvidersManage),
    open("POST", "/api/v1/auth/register/tenant"),
    page("/api/v1/auth/cli/authorize", Permission::ProfileOwn),
    open("POST", "/api/v1/auth/cli/token"),
    auth("POST", "/api/v1/auth/logout", Permission::ProfileOwn),
    auth("GET", "/api/v1/auth/profile", Permission::ProfileOwn),
    auth("PUT", "/api/v1/auth/profile", Permission::ProfileOwn),
    auth("POST", "/api/v1/auth/change-password", Permission::ProfileOwn),
    open("POST", "/api/v1/auth/login/mfa"),
    auth("POST", "/api/v1/auth/mfa/enroll", Permission::ProfileOwn),
    auth("POST", "/api/v1/auth/mfa/verify", Permission::ProfileOwn),
    auth("DELETE", "/api/v1/auth/mfa", Permission::ProfileOwn),
    auth("GET", "/api/v1/auth/sessions", Permission::ProfileOwn),
    auth("DELETE", "/api/v1/auth/sessions/{id}", Permission::ProfileOwn),
    auth("POST", "/api/v1/auth/register/user", Permission::UsersManage),
    auth("GET", "/api/v1/auth/users", Permission::UsersManage),
    auth("GET", "/api/v1/auth/users/{id}", Permission::UsersManage),
    auth("PATCH", "/api/v1/auth/users/{id}", Permission::UsersManage),
    auth("DELETE", "/api/v1/auth/users/{id}", Permission::UsersManage),
    needs("GET", "/api/v1/auth/tenant/profile", Some("tenant"), Permission::TenantRead),
    needs("PUT", "/api/v1/auth/tenant/profile", Some("tenant"), Permission::TenantWrite),
    jobs("GET", "/api/v1/jobs", Permission::JobsRead),
    jobs("GET", "/api/v1/jobs/stats", Permission::JobsManage),
    jobs("POST", "/api/v1/jobs/retry", Permission::JobsManage),
    jobs("POST", "/api/v1/jobs/cancel", Permission::JobsManage),
    stream("/api/v1/jobs/{id}", "jobs", Permission::JobsRead),
    jobs("DELETE", "/api/v1/jobs/{id}", Permission::JobsManage),
    stream("/api/v1/jobs/{id}/events", "jobs", Permission::JobsRead),
    jobs("POST", "/api/v1/jobs/{id}/cancel", Permission::JobsCancel),
    jobs("POST", "/api/v1/jobs/{id}/retry", Permission::JobsManage),
    jobs("GET", "/api/v1/queues", Permission::QueuesRead),
    jobs("GET", "/api/v1/queues/{name}", Permission::QueuesRead),
    jobs("PATCH", "/api/v1/queues/{name}", Permission::QueuesControl),
    jobs("POST", "/api/v1/queues/{name}/pause", Permission::QueuesControl),
    jobs("POST", "/api/v1/queues/{name}/resume", Permission::QueuesControl),
    jobs("GET", "/api/v1/workers", Permission::WorkersRead),
    jobs("GET", "/api/v1/workers/{id}", Permission::WorkersRead),
    jobs("POST", "/api/v1/workers/{id}/drain", Permission::WorkersControl),
    jobs("POST", "/api/v1/workers/{id}/resume", Permission::WorkersControl),
    jobs("GET", "/api/v1/schedules", Permission::SchedulesRead),
    jobs("POST", "/api/v1/schedules", Permission::SchedulesWrite),
    jobs("POST", "/api/v1/schedules/preview", Permission::SchedulesWrite),
    jobs("GET", "/api/v1/schedules/{id}", Permission::SchedulesRead),
    jobs("PUT", "/api/v1/schedules/{id}", Permission::SchedulesWrite),
    jobs("DELETE", "/api/v1/schedules/{id}", Permission::SchedulesWrite),
    jobs("POST", "/api/v1/schedules/{id}/run", Permission::SchedulesWrite),
    jobs("POST", "/api/v1/schedules/{id}/pause", Permission::SchedulesWrite),
    jobs("POST", "/api/v1/schedules/{id}/resume", Permission::SchedulesWrite),
    jobs("GET", "/api/v1/schedules/{id}/fires", Permission::SchedulesRead),
    keys("GET", "/api/v1/api-keys"),
    keys("POST", "/api/v1/api-keys"),
    keys("DELETE", "/api/v1/api-keys/{id}"),
    keys("POST", "/api/v1/api-keys/{id}/revoke"),
    keys("POST", "/api/v1/api-keys/{id}/rotate"),
    keys("GET", "/api/v1/api-keys/{id}/usage"),
    needs("GET", "/api/v1/audit", Some("audit"), Permission::AuditRead),
    needs("GET", "/api/v1/audit/export", Some("audit"), Permission::AuditRead),
    stream("/api/v1/ws/jobs", "realtime", Permission::JobsRead),
    needs("POST", "/api/v1/streams/ticket", None, Permission::StreamsOpen),
    teams("GET", "/api/v1/teams", Permission::TeamsRead),
    teams("POST", "/api/v1/teams", Permission::TeamsWrite),
    teams("GET", "/api/v1/teams/my-teams", Permission::TeamsRead),
    teams("GET", "/api/v1/teams/{teamId}", Permission::TeamsRead),
    teams("PATCH", "/api/v1/teams/{teamId}", Permission::TeamsWrite),
    teams("DELETE", "/api/v1/teams/{teamId}", Permission::TeamsWrite),
    teams("GET", "/api/v1/teams/{teamId}/members", Permission::TeamsRead),
    teams("POST", "/api/v1/teams/{teamId}/members", Permission::TeamsWrite),
    teams("PATCH", "/api/v1/teams/{teamId}/members/{userId}", Permission::TeamsWrite),
    teams("DELETE", "/api/v1/teams/{teamId}/members/{userId}", Permission::TeamsLeave),
    teams("GET", "/api/v1/teams/{teamId}/permissions", Permission::TeamsRead),
    teams("GET", "/api/v1/teams/{teamId}/role-info", Permission::TeamsRead),
    teams("GET", "/api/v1/teams/{teamId}/my-permissions", Permission::TeamsRead),
    teams("GET", "/api/v1/teams/{teamId}/check-permission/{permission}", Permission::TeamsRead),
    settings("GET", "/api/v1/settings"),
    settings("GET", "/api/v1/settings/{key}"),
    settings("PUT", "/api/v1/settings/{key}"),
];

/// Of a route, as it is written in the table.
pub fn find(method: &Method, route: &str) -> Option<&'static Operation> {
    // HEAD is GET without the body.
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    OPERATIONS.iter().find(|operation| operation.path == route && operation.method == method)
}

/// The paths that a ticket can be for.
pub fn is_stream(path: &str) -> bool {
    let matches = |pattern: &str| {
        let (mut theirs, mut ours) = (path.split('/'), pattern.split('/'));
        loop {
            match (theirs.next(), ours.next()) {
                (None, None) => return true,
                (Some(a), Some(b)) if a == b || (b.starts_with('{') && !a.is_empty()) => {}
                _ => return false,
            }
        }
    };
    OPERATIONS.iter().any(|operation| operation.streams && matches(operation.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_stands_in_the_table_once() {
        let mut seen = std::collections::HashSet::new();
        for operation in OPERATIONS {
            assert!(seen.insert((operation.method, operation.path)), "{operation:?} stands twice");
        }
    }

    #[test]
    fn tickets_are_for_streams() {
        assert!(is_stream("/api/v1/ws/jobs"));
        assert!(is_stream("/api/v1/jobs/0192/events"));
        for path in ["/api/v1/queues", "/api/v1/ws/jobs/", "/api/v1/jobs//events", "ws/jobs", ""] {
            assert!(!is_stream(path), "{path}");
        }
    }
}
