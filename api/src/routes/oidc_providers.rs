//! Setting identity providers up.

use axum::{Json, extract::State, response::Response};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use streamspace_common::{OidcProviderId, Secret, config::oidc as defaults};
use streamspace_domain::oidc::{self, Provider};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::Context;
use crate::{
    access,
    extract::{ApiTx, Faults, Id, Query, Valid, Validate},
    page::{self, Linked, List, Page},
    problem::ApiError,
    state::Api,
    view::{GroupMapping, IdentityProvider, ListedIdentityProvider, Role},
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_identity_providers, create_identity_provider))
        .routes(routes!(replace_identity_provider, delete_identity_provider))
}

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
