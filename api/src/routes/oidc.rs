//! Signing in through identity providers.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use streamspace_common::Secret;
use streamspace_domain::{
    callers::Presented,
    oidc::{self, Arrival, Departure, Error, Unanswered},
    sign_in::{Client, Kind, Pass},
};
use url::Url;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::Context;
use crate::{
    browser,
    extract::{Faults, Name, Query, Validate},
    problem::ApiError,
    state::Api,
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(oidc_login)).routes(routes!(oidc_callback))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
struct DepartureQuery {
    /// Where to go when signed in: a path of ours.
    #[param(example = "/", max_length = 2000)]
    return_to: Option<String>,
    /// Links the identity to the account that this browser is signed in to, since at most ten minutes.
    link: Option<bool>,
}

impl Validate for DepartureQuery {
    fn validate(&self, faults: &mut Faults) {
        if self.return_to.as_ref().is_some_and(|path| !is_own_path(path)) {
            faults.add("returnTo", "is no path of this server");
        }
    }
}

/// Whoever makes a link to here must not choose another site that people end up at.
fn is_own_path(path: &str) -> bool {
    let base = Url::parse("http://ours.invalid").expect("a URL");
    let stays = base.join(path).is_ok_and(|url| url.origin() == base.origin());
    path.starts_with('/')
        && !path.contains('\\')
        && !path.chars().any(char::is_control)
        && path.len() <= 2000
        && stays
}

/// Sends the browser to an identity provider to sign in
///
/// It comes back to `callback`, within ten minutes.
#[utoipa::path(
    get, path = "/api/v1/auth/oidc/{provider}/login", tag = "auth",
    params(("provider" = String, Path, example = "acme"), DepartureQuery),
    responses((status = 303, description = "To the provider", headers(("Location" = String), ("Set-Cookie" = String))))
)]
async fn oidc_login(
    State(api): State<Api>,
    Name(provider): Name,
    Query(query): Query<DepartureQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let linking = match query.link {
        Some(true) => Some(whoever_links(&api, &headers).await?),
        _ => None,
    };
    let departure = Departure {
        provider: &provider,
        cookie: browser::cookie(&headers, browser::OIDC),
        return_to: query.return_to.as_deref().unwrap_or("/"),
        linking: linking.as_deref(),
    };
    let sent = api.oidc.depart(&departure).await.map_err(told)?;
    Ok(redirect(sent.to.as_str(), browser::accompany(&sent.cookie, oidc::LIFETIME)))
}

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whoever this browser is signed in as. Not because another site sent it here: that site might have
/// signed it in at the provider as somebody else.
async fn whoever_links(
    api: &Api,
    headers: &HeaderMap,
) -> Result<std::sync::Arc<streamspace_domain::callers::Checked>, ApiError> {
    let from_here = headers.get(FETCH_SITE).is_some_and(|site| site == "same-origin" || site == "none");
    if !from_here {
        return Err(ApiError::forbidden(
            "linking begins on a page of this server, or in the browser's address bar",
        ));
    }
    let checked = match browser::cookie(headers, browser::SESSION) {
        Some(cookie) => api.callers.check(Presented::Cookie(cookie)).await?,
        None => None,
    };
    checked.ok_or_else(|| told(Error::NotFresh))
}

/// What providers add beside it is theirs.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct ArrivalQuery {
    #[param(value_type = Option<String>, max_length = 8000)]
    code: Option<Secret<String>>,
    state: Option<String>,
    /// The issuer, where the provider names itself (RFC 9207).
    iss: Option<String>,
    /// OAuth's word for why there is no code.
    error: Option<String>,
}

impl Validate for ArrivalQuery {
    fn validate(&self, _: &mut Faults) {}
}

/// Takes the browser in that comes back from an identity provider
///
/// It is signed in by a cookie and sent to where it wanted to go.
#[utoipa::path(
    get, path = "/api/v1/auth/oidc/{provider}/callback", tag = "auth",
    params(("provider" = String, Path, example = "acme"), ArrivalQuery),
    responses((status = 303, description = "Signed in", headers(("Location" = String), ("Set-Cookie" = String))))
)]
async fn oidc_callback(
    State(api): State<Api>,
    request: Context,
    Name(provider): Name,
    Query(query): Query<ArrivalQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let arrival = Arrival {
        provider: &provider,
        cookie: browser::cookie(&headers, browser::OIDC),
        state: query.state.as_deref(),
        code: query.code,
        issuer: query.iss.as_deref(),
        error: query.error.as_deref(),
    };
    let device = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let client = Client::new(Kind::Browser, device);
    let arrived = api.oidc.arrive(&request.0, arrival, &client).await.map_err(told)?;
    api.callers.forget(|checked| checked.actor.user == Some(arrived.user));
    let cookie = match arrived.welcome.map(|welcome| welcome.pass) {
        Some(Pass::Cookie(secret)) => Some(browser::remember(&secret)),
        _ => None,
    };
    Ok(redirect(&arrived.return_to, cookie))
}

fn redirect(to: &str, cookie: impl Into<Option<HeaderValue>>) -> Response {
    let Ok(to) = HeaderValue::from_str(to) else {
        return ApiError::malformed("the address to go to is no header").into_response();
    };
    let mut answer = (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response();
    if let Some(cookie) = cookie.into() {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

/// Errors that have a name of their own: people meet them in a browser, without a program around it.
fn told(error: Error) -> ApiError {
    let (status, name, title) = match &error {
        Error::Stale => (StatusCode::BAD_REQUEST, "sign-in-expired", "Begin again"),
        Error::NotFresh => (StatusCode::UNAUTHORIZED, "sign-in-required", "Sign in first"),
        Error::Declined(_) => (StatusCode::FORBIDDEN, "identity-provider-declined", "Not signed in"),
        Error::Unanswered(Unanswered::Untrue(_)) => {
            (StatusCode::FORBIDDEN, "identity-provider-untrusted", "The identity provider is not believed")
        }
        Error::Unanswered(_) => (
            StatusCode::BAD_GATEWAY,
            "identity-provider-unavailable",
            "The identity provider does not answer",
        ),
        Error::NoTenant => (StatusCode::FORBIDDEN, "no-tenant", "No tenant of yours"),
        Error::NoEmail => (StatusCode::FORBIDDEN, "email-missing", "No e-mail address"),
        Error::ManyGroups => (StatusCode::FORBIDDEN, "too-many-groups", "Too many groups"),
        Error::LinkRequired { .. } => (StatusCode::CONFLICT, "link-required", "Link your account first"),
        Error::LinkedToAnother => (StatusCode::CONFLICT, "linked-to-another", "Another account's identity"),
        Error::Disabled => (StatusCode::FORBIDDEN, "account-disabled", "This account is disabled"),
        _ => return error.into(),
    };
    ApiError::new(status, name, title, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_end_up_here_and_nowhere_else() {
        for own in [
            "/",
            "/api/v1/auth/cli/authorize?redirect_uri=http%3A%2F%2F127.0.0.1%3A5",
            "/a//b",
            "/?x=http://y",
        ] {
            assert!(is_own_path(own), "{own}");
        }
        for other in [
            "",
            "a",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example",
            "javascript:alert(1)",
            "/a\r\nSet-Cookie: x=y",
            "/\t/evil.example",
            "//",
            "/a\u{0}",
        ] {
            assert!(!is_own_path(other), "{other:?}");
        }
        assert!(!is_own_path(&format!("/{}", "a".repeat(2000))));
    }
}
