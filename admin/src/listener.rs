//! The three routes over HTTP.

use std::{io, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use streamspace_common::telemetry::Metrics;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    checks::{Checks, Health},
    server::{Patience, serve_http},
};

/// How often histograms are folded, so that they do not grow between two scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Probes and scrapers are few.
const MOST_CONNECTIONS: usize = 256;

/// Serves until `shutdown`. That token is the process's end, not the begin of its draining: a
/// draining process is alive and says that it is not ready (`Checks::until`).
pub async fn serve(
    listener: TcpListener,
    checks: Checks,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> io::Result<()> {
    info!("admin listener on http://{}", listener.local_addr()?);
    let upkeep = async {
        loop {
            tokio::time::sleep(UPKEEP).await;
            metrics.fold();
        }
    };
    let server =
        serve_http(listener, router(checks, metrics.clone()), Patience::with(MOST_CONNECTIONS), shutdown);
    tokio::select! {
        served = server => served,
        () = upkeep => Ok(()),
    }
}

fn router(checks: Checks, metrics: Metrics) -> Router {
    Router::new()
        .route("/health/live", get(|State(checks): State<Checks>| async move { Json(checks.live()) }))
        .route("/health/ready", get(|State(checks): State<Checks>| async move { answer(checks.run().await) }))
        .with_state(checks)
        .route(
            "/metrics",
            get(async move || ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], metrics.render())),
        )
}

fn answer(health: Health) -> impl IntoResponse {
    let status = if health.is_serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health))
}

#[cfg(test)]
mod tests {
    use streamspace_common::telemetry;

    use super::*;

    #[tokio::test]
    async fn probes_and_scrapers_are_answered_until_the_end() {
        rustls::crypto::ring::default_provider().install_default().expect("the first");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        let end = CancellationToken::new();
        let checks = Checks::new().required("database", async || Err("down"));
        let serving = tokio::spawn(serve(listener, checks, telemetry::metrics(), end.clone()));
        let ask = async |path: &str| {
            let answer = reqwest::get(format!("{base}{path}")).await.expect("an answer");
            (answer.status().as_u16(), answer.text().await.expect("a body"))
        };

        assert_eq!(ask("/health/live").await.0, 200);
        let (status, body) = ask("/health/ready").await;
        assert_eq!(status, 503);
        assert!(body.contains(r#""reason":"down""#), "{body}");
        let (status, body) = ask("/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains("streamspace_build_info"), "{body}");

        end.cancel();
        serving.await.expect("no panic").expect("a clean end");
    }
}
