//! Who may call what: one table, and the one gate that every request passes.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, Uri, header};
use streamspace_domain::{
    callers::{Checked, Credential, Presented},
    identity::{Permission, Require},
    tickets,
};

use crate::{
    browser,
    caller::Caller,
    limit::Subject,
    pages,
    problem::ApiError,
    request::{self, Asked},
    state::Api,
};

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
    page("/api/v1/auth/cli/authorize", Permission::ProfileOwn),
    open("POST", "/api/v1/auth/cli/token"),
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

/// Lets in whoever may come: tells who it is, counts it against their limit, and asks for scope and
/// permission. What a caller may *see* is decided by each operation.
pub async fn gate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let operation = route.and_then(|route| find(request.method(), route.as_str()));
    match operation.map(|operation| operation.access) {
        Some(Access::Public) => return public_answer(&api, request, next).await,
        Some(Access::Unlimited) => return next.run(request).await,
        Some(Access::Needs { .. }) | None => {}
    }
    let checked = match request::soon(authenticate(&api, &mut request, operation)).await.flatten() {
        Ok(checked) => checked,
        // There is nothing, or not with this method, for strangers too: the fallback says so.
        Err(_) if operation.is_none() => return next.run(request).await,
        // The operation stays closed: this page is the same for everybody and tells nothing. Whoever
        // signs in by it comes again, and passes here.
        Err(refused)
            if operation.is_some_and(|operation| operation.page)
                && pages::helps(request.headers(), &refused) =>
        {
            return pages::sign_in();
        }
        Err(refused) => return refused.into_response(),
    };
    let asked = Asked { tenant: checked.actor.tenant, user: checked.actor.user, key: checked.key() };
    let standing = counted(&checked).map(|subject| api.limits.take(subject));
    if let Some(sign_in) = checked.sign_in() {
        api.used.note(sign_in);
    }
    let mut response = if let Some(standing) = standing.filter(|standing| !standing.is_allowed()) {
        standing.refusal().into_response()
    } else if let Err(refused) = operation.map_or(Ok(()), |operation| authorise(&checked, operation)) {
        refused.into_response()
    } else {
        let context = request.extensions().get::<streamspace_queue::Request>().cloned();
        if operation.is_some() {
            request.extensions_mut().insert(Caller::new(checked, context.unwrap_or_default()));
        }
        next.run(request).await
    };
    if let Some(standing) = standing {
        standing.write(response.headers_mut());
    }
    response.extensions_mut().insert(asked);
    response
}

/// A key has a limit of its own, whomever it acts for; a person has one for all their sign-ins.
fn counted(checked: &Checked) -> Option<Subject> {
    match checked.credential {
        Credential::Key(id) => checked.hourly_limit.map(|hourly| Subject::Key { id, hourly }),
        Credential::SignIn(_) => checked.actor.user.map(Subject::User),
    }
}

/// What nobody needs to be known for is counted by address.
async fn public_answer(api: &Api, request: Request, next: Next) -> Response {
    let address =
        request.extensions().get::<streamspace_queue::Request>().and_then(|request| request.address);
    let Some(address) = address else { return next.run(request).await };
    let standing = api.limits.take(Subject::Address(address));
    let mut response = match standing.is_allowed() {
        true => next.run(request).await,
        false => standing.refusal().into_response(),
    };
    standing.write(response.headers_mut());
    response
}

fn authorise(checked: &Checked, operation: &Operation) -> Result<(), ApiError> {
    let Access::Needs { permission, area } = operation.access else { return Ok(()) };
    if checked.must_enrol && !ENROLMENT.contains(&(operation.method, operation.path)) {
        return Err(mfa_required());
    }
    let writes = operation.method != "GET";
    if let Some(area) = area.filter(|area| !checked.scopes.allow(area, writes)) {
        let act = if writes { "write" } else { "read" };
        return Err(ApiError::forbidden(format!("this key has no scope {area}.{act}")));
    }
    Ok(checked.actor.require(permission)?)
}

async fn authenticate(
    api: &Api,
    request: &mut Request,
    operation: Option<&Operation>,
) -> Result<Arc<Checked>, ApiError> {
    if let Some(bearer) = presented(request.headers())? {
        let checked = api.callers.check(Presented::Bearer(bearer)).await?;
        return checked.ok_or_else(|| ApiError::unauthenticated("this key or token is not accepted"));
    }
    if let Some(cookie) = browser::cookie(request.headers(), browser::SESSION) {
        // A browser sends it with whatever any page asks for.
        if (!request.method().is_safe() || is_upgrade(request.headers()))
            && !api.site.asked(request.headers())
        {
            return Err(ApiError::forbidden("a browser may ask for this from our own pages only"));
        }
        let checked = api.callers.check(Presented::Cookie(cookie)).await?;
        return checked.ok_or_else(|| {
            ApiError::unauthenticated("this sign-in is over").with(header::SET_COOKIE, browser::forget())
        });
    }
    let streams = operation.is_some_and(|operation| operation.streams);
    let ticket = if streams { take_ticket(request.uri_mut()) } else { None };
    let Some(ticket) = ticket else {
        return Err(ApiError::unauthenticated(
            "sign in, or send an API key as X-API-Key or Authorization: Bearer",
        ));
    };
    let holder = tickets::take(&api.queue, &ticket, request.uri().path()).await?;
    let holder = match holder {
        Some(holder) => api.callers.still([holder]).await?.remove(&holder),
        None => None,
    };
    holder.ok_or_else(|| ApiError::unauthenticated("this ticket is used, too old, or for another path"))
}

/// Who asks for what strangers may ask for too, where the answer depends on it: a cookie that is over, a
/// key without the scope and somebody without the second factor that they need are strangers. A key or
/// token that was never one is refused, so that nobody wonders.
pub(crate) async fn whoever(
    api: &Api,
    headers: &HeaderMap,
    area: &str,
) -> Result<Option<Arc<Checked>>, ApiError> {
    let checked = match presented(headers)? {
        Some(bearer) => {
            let checked = api.callers.check(Presented::Bearer(bearer)).await?;
            Some(checked.ok_or_else(|| ApiError::unauthenticated("this key or token is not accepted"))?)
        }
        None => match browser::cookie(headers, browser::SESSION) {
            Some(cookie) => api.callers.check(Presented::Cookie(cookie)).await?,
            None => None,
        },
    };
    Ok(checked.filter(|checked| checked.scopes.allow(area, false) && !checked.must_enrol))
}

/// What somebody may do before they have the second factor that their tenant wants.
const ENROLMENT: [(&str, &str); 4] = [
    ("POST", "/api/v1/auth/mfa/enroll"),
    ("POST", "/api/v1/auth/mfa/verify"),
    ("POST", "/api/v1/auth/logout"),
    ("GET", "/api/v1/auth/profile"),
];

fn mfa_required() -> ApiError {
    let detail = "your tenant wants a second factor: POST /api/v1/auth/mfa/enroll, then …/verify";
    ApiError::new(http::StatusCode::FORBIDDEN, "mfa-required", "Set up a second factor first", detail)
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// As `X-API-Key` or as a bearer token.
fn presented(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let text = |name: header::HeaderName| {
        headers.get(name).map(|value| {
            value.to_str().map_err(|_| ApiError::unauthenticated("the credentials are not text"))
        })
    };
    if let Some(key) = text(header::HeaderName::from_static("x-api-key")).transpose()? {
        return Ok(Some(key.trim()));
    }
    let Some(authorization) = text(header::AUTHORIZATION).transpose()? else { return Ok(None) };
    match authorization.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(key.trim())),
        _ => Err(ApiError::unauthenticated("the only scheme is Bearer")),
    }
}

/// Takes the ticket out of the address, so that nothing after this sees it.
fn take_ticket(uri: &mut Uri) -> Option<String> {
    let query = uri.query()?;
    let mut ticket = None;
    let mut rest = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name == "ticket" {
            ticket = Some(value.into_owned());
        } else {
            rest.append_pair(&name, &value);
        }
    }
    let rest = rest.finish();
    let path = if rest.is_empty() { uri.path().to_owned() } else { format!("{}?{rest}", uri.path()) };
    *uri = path.parse().ok()?;
    ticket
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
    fn a_ticket_leaves_the_address() {
        let mut uri: Uri = "/api/v1/ws/jobs?kind=a%20b&ticket=st_x".parse().expect("an address");
        assert_eq!(take_ticket(&mut uri).as_deref(), Some("st_x"));
        assert_eq!(uri, "/api/v1/ws/jobs?kind=a+b");
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
