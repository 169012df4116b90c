use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;
use streamspace_admin::Health;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::Api;

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(root)).routes(routes!(health))
}

/// What answers here, and where to go on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Root {
    #[schema(example = "StreamSpace")]
    name: &'static str,
    version: &'static str,
    links: Links,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Links {
    docs: &'static str,
    openapi: &'static str,
    health: &'static str,
}

/// Name, version and links
#[utoipa::path(get, path = "/", tag = "health", responses((status = 200, body = Root)))]
async fn root() -> Json<Root> {
    Json(Root {
        name: "StreamSpace",
        version: env!("CARGO_PKG_VERSION"),
        links: Links { docs: "/api/docs", openapi: "/api/openapi.json", health: "/health" },
    })
}

/// All checks of this process
#[utoipa::path(
    get, path = "/health", tag = "health",
    responses(
        (status = 200, description = "It serves, perhaps with less than it could have", body = Health),
        (status = 503, description = "It cannot serve", body = Health),
    )
)]
async fn health(State(api): State<Api>) -> Response {
    answer(&api).await
}

pub(super) async fn answer(api: &Api) -> Response {
    let health = api.checks.run().await.public();
    let status = if health.is_serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}
