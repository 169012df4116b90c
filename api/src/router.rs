//! The routes with everything around them, from the inside out.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
};
use http::StatusCode;
use tower_http::compression::{
    CompressionLayer, Predicate,
    predicate::{NotForContentType, SizeAbove},
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{access, cors, idempotency, openapi, problem::ApiError, request, routes, state::Api};

/// The described routes.
pub(crate) fn operations() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(routes::health::router())
        .merge(routes::jobs::router())
        .merge(routes::queues::router())
        .merge(routes::workers::router())
        .merge(routes::schedules::router())
        .merge(routes::streams::router())
        .merge(routes::teams::router())
        .merge(routes::settings::router())
        .merge(routes::api_keys::router())
        .merge(routes::audit::router())
        .merge(routes::auth::router())
        .merge(routes::oidc_providers::router())
        .merge(routes::oidc::router())
        .merge(routes::mfa::router())
        .merge(routes::links::router())
        .merge(routes::cli_sign_in::router())
        .merge(routes::users::router())
        .merge(routes::registration::router())
        .merge(routes::tenant::router())
}

pub fn router(api: Api) -> Router {
    let (routes, document) = operations().split_for_parts();
    // Its own validator would send the document to a stranger.
    let page = SwaggerUi::new("/api/docs")
        .external_url_unchecked("/api/openapi.json", openapi::complete(document))
        .config(Config::new(["/api/openapi.json"]).validator_url("none").try_it_out_enabled(true));
    let gated = routes
        .merge(page)
        .fallback(nowhere)
        .method_not_allowed_fallback(not_so)
        .layer(from_fn_with_state(api.clone(), idempotency::once))
        .layer(from_fn(request::hurry))
        // Inside of the gate too: what a caller is told of their limit is told beside every answer.
        .layer(from_fn(request::catch))
        .layer(from_fn_with_state(api.clone(), access::gate))
        .layer(DefaultBodyLimit::max(api.body_limit))
        .layer(from_fn(request::catch));
    cors::around(gated, api.cors_origins.as_ref())
        .layer(from_fn_with_state(api.clone(), request::observe))
        // Outside of whatever may put another body in.
        .layer(compression())
        .with_state(api)
}

async fn nowhere() -> ApiError {
    ApiError::not_found("there is nothing at this address")
}

async fn not_so() -> ApiError {
    ApiError::of_status(StatusCode::METHOD_NOT_ALLOWED)
}

/// Lists and documents; events must not wait in a compressor.
fn compression() -> CompressionLayer<impl Predicate> {
    CompressionLayer::new().compress_when(SizeAbove::new(1024).and(NotForContentType::SSE))
}
