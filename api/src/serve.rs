//! The API on its port, and what it does beside answering.

use std::{io, time::Duration};

use axum::Router;
use http::{HeaderValue, header};
use streamspace_admin::{Patience, serve_http};
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{problem::ApiError, router::router, state::Api};

/// How long requests that are being answered may take once the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Streams hold a connection each.
const MOST_CONNECTIONS: usize = 10_000;

/// Answers everything with `503` until `stop`: the process waits for its database.
pub async fn turn_away(listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    let not_ready = async || {
        ApiError::unavailable("this process waits for its database; /health/ready of its admin port says why")
            .with(header::RETRY_AFTER, HeaderValue::from_static("1"))
    };
    serve_http(listener, Router::new().fallback(not_ready), Patience::with(MOST_CONNECTIONS), stop).await
}

/// Serves until the API's `stop`; then answers what has begun, and ends.
pub async fn serve(listener: TcpListener, api: Api) -> io::Result<()> {
    info!("API on http://{}", listener.local_addr()?);
    let stop = api.stop.clone();
    let server = serve_http(listener, router(api.clone()), Patience::with(MOST_CONNECTIONS), stop.clone());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => served?,
        () = overdue => warn!("requests that were not answered within {DRAIN:?} are dropped"),
        () = keep_up(&api) => {}
    }
    api.calls.write(&api.queue).await;
    Ok(())
}

const CALLS: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_secs(60);

/// Writes down what keys and sign-ins were used for, and forgets hours that are over, again and again.
async fn keep_up(api: &Api) {
    let (mut calls, mut minutes) = (interval(CALLS), interval(MINUTE));
    calls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = calls.tick() => api.calls.write(&api.queue).await,
            _ = minutes.tick() => {
                api.limits.forget();
                api.used.write(&api.sign_ins).await;
            }
        }
    }
}
