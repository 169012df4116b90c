//! Strangers make tenants, where they may.

use axum::{Json, extract::State, response::Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use streamspace_common::Secret;
use streamspace_domain::registration::{Error, NewRegistration, Registered};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    api_keys::NewKey,
    auth::{Context, SignedIn, check_chosen, remembered},
};
use crate::{
    extract::{Faults, Valid, Validate},
    problem::ApiError,
    state::Api,
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(register_tenant))
}

/// A tenant and its owner, as they wish to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RegisterTenantBody {
    #[schema(min_length = 1, max_length = 200)]
    tenant_name: String,
    /// In addresses; from the name when absent.
    #[schema(max_length = 63, example = "acme")]
    slug: Option<String>,
    #[schema(max_length = 320)]
    contact_email: String,
    /// The owner's.
    #[schema(max_length = 320, example = "ada@example.org")]
    email: String,
    /// The owner's.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128)]
    password: Secret<String>,
    #[schema(value_type = String, format = Password)]
    password_confirmation: Secret<String>,
    /// Where only those register who are invited.
    #[schema(value_type = Option<String>, max_length = 100, example = "ti_…")]
    invitation: Option<Secret<String>>,
}

impl Validate for RegisterTenantBody {
    fn validate(&self, faults: &mut Faults) {
        for (pointer, text, most) in [
            ("/tenantName", &self.tenant_name, 200),
            ("/contactEmail", &self.contact_email, 320),
            ("/email", &self.email, 320),
            ("/name", &self.name, 200),
        ] {
            faults.text(pointer, text, most);
        }
        if let Some(slug) = &self.slug {
            faults.text("/slug", slug, 63);
        }
        check_chosen(faults, &self.password, &self.password_confirmation);
    }
}

/// The owner is signed in, and the tenant has a key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RegisteredTenant {
    #[serde(flatten)]
    signed_in: SignedIn,
    /// The tenant's first: with the role `admin`, shown this once.
    api_key: NewKey,
}

fn told(error: Error) -> ApiError {
    match error {
        Error::Closed | Error::NotInvited => ApiError::new(
            StatusCode::FORBIDDEN,
            "registration-closed",
            "Registration is closed",
            error.to_string(),
        ),
        Error::SignIn(error) => super::auth::told(error),
        other => other.into(),
    }
}

/// Makes a tenant and its owner
///
/// For strangers, where the installation lets them: everybody, or those who bring an invitation. A slug
/// that is taken is `409`. The owner is in: a browser's own page (by its `Origin`) gets a cookie instead
/// of tokens. `apiKey` is shown this once.
///
/// There is no caller yet whose `Idempotency-Key` it could be, so one that is sent means nothing; and
/// secrets would not be told again. Who repeats it finds the slug taken, or the invitation used.
#[utoipa::path(
    post, path = "/api/v1/auth/register/tenant", tag = "auth", request_body = RegisterTenantBody,
    responses((status = 201, body = RegisteredTenant))
)]
async fn register_tenant(
    State(api): State<Api>,
    request: Context,
    headers: HeaderMap,
    Valid(body): Valid<RegisterTenantBody>,
) -> Result<Response, ApiError> {
    let client = api.site.client(&headers)?;
    let new = NewRegistration {
        tenant_name: body.tenant_name,
        slug: body.slug,
        contact_email: body.contact_email,
        email: body.email,
        name: body.name,
        password: body.password,
        invitation: body.invitation,
    };
    let Registered { welcome, key, secret } =
        api.registrations.register(request.0, new, &client).await.map_err(told)?;
    let (signed_in, cookie) = SignedIn::new(&api, welcome);
    let answer = RegisteredTenant { signed_in, api_key: NewKey::new(key, &secret) };
    Ok(remembered((StatusCode::CREATED, Json(answer)), cookie))
}
