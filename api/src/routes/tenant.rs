//! The tenant of whoever asks.

use axum::{Json, extract::State, response::Response};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use streamspace_domain::identity::{self, ChangeTenant};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    caller::Caller,
    extract::{ApiTx, Faults, Valid, Validate},
    problem::ApiError,
    state::Api,
    view::Tenant,
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_tenant, change_tenant))
}

/// The tenant's profile
#[utoipa::path(get, path = "/api/v1/auth/tenant/profile", tag = "auth", responses((status = 200, body = Tenant)))]
async fn get_tenant(State(api): State<Api>, caller: Caller) -> Result<Json<Tenant>, ApiError> {
    let mut conn = api.queue.read().await?;
    Ok(Json(identity::tenant_profile(&mut conn, caller.actor()).await?.into()))
}

/// What is to be different.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct TenantBody {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// `null` takes it away.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 320)]
    contact_email: Option<Option<String>>,
    /// An object, at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// Tells a `null` from nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

impl Validate for TenantBody {
    fn validate(&self, faults: &mut Faults) {
        if let Some(name) = &self.name {
            faults.text("/name", name, 200);
        }
        if let Some(Some(email)) = &self.contact_email {
            faults.text("/contactEmail", email, 320);
        }
        if self.metadata.as_ref().is_some_and(|metadata| !metadata.is_object()) {
            faults.add("/metadata", "must be an object");
        }
    }
}

/// Changes the tenant's profile
#[utoipa::path(put, path = "/api/v1/auth/tenant/profile", tag = "auth", request_body = TenantBody, responses((status = 200, body = Tenant)))]
async fn change_tenant(mut tx: ApiTx, Valid(body): Valid<TenantBody>) -> Result<Response, ApiError> {
    let change = ChangeTenant { name: body.name, contact_email: body.contact_email, metadata: body.metadata };
    let tenant = identity::change_tenant(&mut tx, change).await?;
    tx.commit(Json(Tenant::from(tenant))).await
}
