//! Signing in through identity providers, and setting them up.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use streamspace_common::{OidcProviderId, Secret, config::oidc as defaults};
use streamspace_domain::{
    callers::Presented,
    oidc::{self, Arrival, Departure, Error, Provider, Unanswered},
    sign_in::{Client, Kind, Pass},
};
use url::Url;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::Context;
use crate::{
    access, browser,
    extract::{ApiTx, Faults, Id, Name, Query, Valid, Validate},
    page::{self, Linked, List, Page},
    problem::ApiError,
    state::Api,
    view::{GroupMapping, IdentityProvider, ListedIdentityProvider, Role},
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_identity_providers, create_identity_provider))
        .routes(routes!(replace_identity_provider, delete_identity_provider))
        .routes(routes!(oidc_login))
        .routes(routes!(oidc_callback))
}

// Signing in -----------------------------------------------------------------------------------------

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

// Setting up -----------------------------------------------------------------------------------------

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct ProvidersQuery {
    /// The slug of the tenant that one wants to sign in to; else one's own.
    #[param(max_length = 63)]
    tenant: Option<String>,
    /// Items of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: the last page's `nextCursor`.
    cursor: Option<String>,
}

impl Validate for ProvidersQuery {
    fn validate(&self, faults: &mut Faults) {
        page::check(self.limit, faults);
        if let Some(tenant) = &self.tenant {
            faults.text("tenant", tenant, 63);
        }
    }
}

/// The identity providers through which one signs in to a tenant, by their names
///
/// Open to everybody. Administrators of the tenant are told all that is known, but for the secret.
#[utoipa::path(get, path = "/api/v1/auth/oidc/providers", tag = "auth", params(ProvidersQuery), responses((status = 200, body = Page<ListedIdentityProvider>)))]
async fn list_identity_providers(
    State(api): State<Api>,
    request: Context,
    headers: HeaderMap,
    Query(query): Query<ProvidersQuery>,
) -> Result<Linked<ListedIdentityProvider>, ApiError> {
    let caller = access::whoever(&api, &request.0, &headers, "auth").await?;
    let list = List::new("/api/v1/auth/oidc/providers").filter("tenant", query.tenant.as_ref());
    let after: Option<String> = list.begin(query.cursor.as_deref())?;
    let mut conn = api.queue.read().await?;
    let actor = caller.as_ref().map(|checked| &checked.actor);
    let listed = api.oidc.list(&mut conn, actor, query.tenant.as_deref()).await?;
    let shown = listed
        .providers
        .into_iter()
        .filter(|provider| after.as_ref().is_none_or(|after| provider.settings.name > *after))
        .map(|provider| match listed.whole {
            true => ListedIdentityProvider::Whole(Box::new(whole(&api, provider))),
            false => ListedIdentityProvider::Named(provider.into()),
        })
        .collect();
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    Ok(list.page_of(shown, limit, |provider| provider.name().to_owned()))
}

fn whole(api: &Api, provider: Provider) -> IdentityProvider {
    let redirect_uri = api.oidc.redirect_uri(&provider);
    IdentityProvider::new(provider, redirect_uri)
}

/// A provider, as an administrator describes one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct IdentityProviderBody {
    /// Stands in addresses: a-z, 0-9 and inner dashes. No two of the installation have the same.
    #[schema(example = "acme", max_length = 63)]
    name: String,
    /// The name when absent.
    #[schema(max_length = 200)]
    display_name: Option<String>,
    #[serde(default = "yes")]
    #[schema(default = true)]
    enabled: bool,
    /// The issuer: below it lies `/.well-known/openid-configuration`.
    #[schema(example = "https://id.acme.example/realms/main", max_length = 2000)]
    provider_url: String,
    #[schema(max_length = 500)]
    client_id: String,
    /// Never told again. A change without it leaves it as it is, unless the provider is another.
    #[schema(value_type = Option<String>, format = Password, max_length = 2000)]
    client_secret: Option<Secret<String>>,
    /// Below the public URL when absent.
    #[schema(max_length = 2000)]
    redirect_uri: Option<String>,
    #[schema(default = json!(["openid", "email", "profile"]), max_items = 20)]
    scopes: Option<Vec<String>>,
    #[schema(default = "preferred_username", max_length = 200)]
    username_claim: Option<String>,
    #[schema(default = "email", max_length = 200)]
    email_claim: Option<String>,
    #[schema(default = "groups", max_length = 200)]
    groups_claim: Option<String>,
    #[serde(default)]
    #[schema(max_items = 200)]
    group_mapping: Vec<GroupMapping>,
    /// Of whom no group gives another; `viewer` when absent. Never `owner`.
    default_role: Option<Role>,
}

fn yes() -> bool {
    true
}

impl IdentityProviderBody {
    fn settings(&self) -> oidc::Settings {
        oidc::Settings {
            name: self.name.clone(),
            display_name: self.display_name.clone().unwrap_or_else(|| self.name.clone()),
            enabled: self.enabled,
            provider_url: self.provider_url.clone(),
            client_id: self.client_id.clone(),
            redirect_uri: self.redirect_uri.clone(),
            scopes: self.scopes.clone().unwrap_or_else(defaults::scopes),
            username_claim: self.username_claim.clone().unwrap_or_else(defaults::username_claim),
            email_claim: self.email_claim.clone().unwrap_or_else(defaults::email_claim),
            groups_claim: self.groups_claim.clone().unwrap_or_else(defaults::groups_claim),
            group_mapping: self.group_mapping.iter().cloned().map(Into::into).collect(),
            default_role: self.default_role.map_or_else(defaults::default_role, Into::into),
        }
    }
}

impl Validate for IdentityProviderBody {
    fn validate(&self, faults: &mut Faults) {
        for (pointer, detail) in self.settings().faults() {
            faults.add(pointer, detail);
        }
    }
}

/// Sets an identity provider up for the tenant
///
/// What gives the role `admin` is set up by owners.
#[utoipa::path(
    post, path = "/api/v1/auth/oidc/providers", tag = "auth", request_body = IdentityProviderBody,
    responses((status = 201, body = IdentityProvider, headers(("Location" = String, description = "Of the provider"))))
)]
async fn create_identity_provider(
    State(api): State<Api>,
    mut tx: ApiTx,
    Valid(body): Valid<IdentityProviderBody>,
) -> Result<Response, ApiError> {
    let Some(secret) = &body.client_secret else {
        return Err(ApiError::invalid_field("/clientSecret", "is missing"));
    };
    let made = api.oidc.create(&mut tx, body.settings(), secret).await?;
    let location = made.id.map(|id| format!("/api/v1/auth/oidc/providers/{id}")).unwrap_or_default();
    tx.commit((StatusCode::CREATED, [(header::LOCATION, location)], Json(whole(&api, made)))).await
}

/// Describes an identity provider of the tenant anew
///
/// It holds from the next sign-in on. One that the configuration describes is changed there.
#[utoipa::path(
    put, path = "/api/v1/auth/oidc/providers/{id}", tag = "auth", params(("id" = uuid::Uuid, Path)),
    request_body = IdentityProviderBody, responses((status = 200, body = IdentityProvider))
)]
async fn replace_identity_provider(
    State(api): State<Api>,
    mut tx: ApiTx,
    Id(id): Id<OidcProviderId>,
    Valid(body): Valid<IdentityProviderBody>,
) -> Result<Response, ApiError> {
    let changed = api.oidc.replace(&mut tx, id, body.settings(), body.client_secret.as_ref()).await?;
    tx.commit(Json(whole(&api, changed))).await
}

/// Removes an identity provider of the tenant
///
/// Nobody signs in through it any more. Whoever did stays, and can sign in by other ways.
#[utoipa::path(delete, path = "/api/v1/auth/oidc/providers/{id}", tag = "auth", params(("id" = uuid::Uuid, Path)), responses((status = 204, description = "It is gone")))]
async fn delete_identity_provider(
    State(api): State<Api>,
    mut tx: ApiTx,
    Id(id): Id<OidcProviderId>,
) -> Result<Response, ApiError> {
    api.oidc.delete(&mut tx, id).await?;
    tx.commit(StatusCode::NO_CONTENT).await
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
