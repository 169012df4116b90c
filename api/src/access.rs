//! Who may call what: the one gate that every request passes.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Extensions, HeaderMap, Uri, header};
use streamspace_domain::{
    api_keys,
    callers::{Checked, Credential, Presented},
    identity::Require,
    tickets::{self, Holder},
};
use streamspace_queue::Request as Context;

use crate::{
    browser,
    caller::Caller,
    limit::Subject,
    operations::{self, Access, Operation},
    pages,
    problem::ApiError,
    request::{self, Asked},
    state::Api,
};

/// Lets in whoever may come: tells who it is, counts it against their limit, and asks for scope and
/// permission. What a caller may *see* is decided by each operation.
pub async fn gate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let operation = route.and_then(|route| operations::find(request.method(), route.as_str()));
    match operation.map(|operation| operation.access) {
        Some(Access::Public) => return public_answer(&api, request, next).await,
        Some(Access::Unlimited) => return next.run(request).await,
        Some(Access::Needs { .. }) | None => {}
    }
    // Mostly it is known, and nothing has to be waited for.
    let at_hand = presented(request.headers()).ok().flatten().and_then(|bearer| api.callers.at_hand(bearer));
    let checked = match at_hand {
        Some(checked) => Ok(checked),
        None => request::soon(authenticate(&api, &mut request, operation)).await.flatten(),
    };
    let checked = match checked {
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
        if operation.is_some() {
            let context = context(request.extensions());
            request.extensions_mut().insert(Caller::new(checked, context));
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
    let Some(address) = context(request.extensions()).address else { return next.run(request).await };
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
        return by_bearer(api, &context(request.extensions()), bearer).await;
    }
    if let Some(cookie) = browser::cookie(request.headers(), browser::SESSION) {
        // A browser sends it with whatever any page asks for.
        if (!request.method().is_safe() || is_upgrade(request.headers()))
            && !api.site.asked(request.headers())
        {
            return Err(ApiError::forbidden("a browser may ask for this from our own pages only"));
        }
        let checked = api.callers.check(Presented::Cookie(cookie)).await?;
        return match checked {
            Some(checked) => Ok(checked),
            None => {
                refused(api, &context(request.extensions()))?;
                let over = ApiError::unauthenticated("this sign-in is over");
                Err(over.with(header::SET_COOKIE, browser::forget()))
            }
        };
    }
    let streams = operation.is_some_and(|operation| operation.streams);
    let ticket = if streams { take_ticket(request.uri_mut()) } else { None };
    let Some(ticket) = ticket else {
        return Err(ApiError::unauthenticated(
            "sign in, or send an API key as X-API-Key or Authorization: Bearer",
        ));
    };
    let holder = tickets::take(&api.queue, &ticket, request.uri().path()).await?;
    let checked = match holder {
        Some(Holder { credential, until }) => {
            let checked = api.callers.still([credential]).await?.remove(&credential);
            // Of an access token: the stream ends with it, as one that it opened itself.
            checked.map(|checked| Arc::new(Checked { expires_at: until, ..(*checked).clone() }))
        }
        None => None,
    };
    if let Some(checked) = checked.filter(|checked| !checked.is_over()) {
        return Ok(checked);
    }
    refused(api, &context(request.extensions()))?;
    Err(ApiError::unauthenticated("this ticket is used, too old, or for another path"))
}

/// Counts somebody who came with credentials that are none.
fn refused(api: &Api, context: &Context) -> Result<(), ApiError> {
    let Some(address) = context.address else { return Ok(()) };
    let standing = api.limits.take(Subject::Refused(address));
    if standing.is_allowed() { Ok(()) } else { Err(standing.refusal()) }
}

fn context(extensions: &Extensions) -> Context {
    extensions.get::<Context>().cloned().unwrap_or_default()
}

async fn by_bearer(api: &Api, context: &Context, bearer: &str) -> Result<Arc<Checked>, ApiError> {
    if let Some(checked) = api.callers.check(Presented::Bearer(bearer)).await? {
        return Ok(checked);
    }
    refused(api, context)?;
    api_keys::note_refusal(&api.queue, context, bearer).await?;
    Err(ApiError::unauthenticated("this key or token is not accepted"))
}

/// Who asks for what strangers may ask for too, where the answer depends on it: a cookie that is over, a
/// key without the scope and somebody without the second factor that they need are strangers. A key or
/// token that was never one is refused, so that nobody wonders.
pub(crate) async fn whoever(
    api: &Api,
    context: &Context,
    headers: &HeaderMap,
    area: &str,
) -> Result<Option<Arc<Checked>>, ApiError> {
    let checked = match presented(headers)? {
        Some(bearer) => Some(by_bearer(api, context, bearer).await?),
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
    fn a_ticket_leaves_the_address() {
        let mut uri: Uri = "/api/v1/ws/jobs?kind=a%20b&ticket=st_x".parse().expect("an address");
        assert_eq!(take_ticket(&mut uri).as_deref(), Some("st_x"));
        assert_eq!(uri, "/api/v1/ws/jobs?kind=a+b");
    }
}
