//! What web pages of other origins may do with the API in a browser: nothing, but those that the
//! configuration names.

use std::time::Duration;

use axum::{Router, middleware::map_response, response::Response};
use http::{HeaderName, HeaderValue, Method, header};
use streamspace_common::config::Origins;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{limit, request, state::Api};

/// How long a browser need not ask again.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Puts it around what there is: a browser's question whether it may is answered here, and goes no
/// further.
pub fn around(routes: Router<Api>, origins: Option<&Origins>) -> Router<Api> {
    match origins {
        Some(origins) => routes.layer(layer(origins)).layer(map_response(keep_from_others)),
        None => routes,
    }
}

fn layer(origins: &Origins) -> CorsLayer {
    let cors = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        // What an operation does not know, it ignores.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            limit::POLICY,
            limit::LIMIT,
            header::RETRY_AFTER,
            request::REQUEST_ID,
            header::LOCATION,
            header::LINK,
        ])
        .max_age(MAX_AGE);
    match origins {
        Origins::Any => cors.allow_origin(AllowOrigin::any()),
        Origins::These(origins) => {
            let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            cors.allow_origin(AllowOrigin::list(origins)).allow_credentials(true)
        }
    }
}

const FOR_PAGES: [HeaderName; 5] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// The layer tells everybody what may be done by those who may do something.
async fn keep_from_others(mut response: Response) -> Response {
    if !response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        for name in FOR_PAGES {
            response.headers_mut().remove(name);
        }
    }
    response
}
