//! The API on its port, and what it does beside answering.

use std::{io, time::Duration};

use streamspace_admin::{Patience, serve_http};
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{router::router, state::Api};

/// How long requests that are being answered may take once the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Streams hold a connection each.
const MOST_CONNECTIONS: usize = 10_000;

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
    write_used(&api).await;
    Ok(())
}

const USED: Duration = Duration::from_secs(5);
const HOURS: Duration = Duration::from_secs(60);

/// Writes down which keys were used, and forgets their hours that are over, again and again.
async fn keep_up(api: &Api) {
    let (mut used, mut hours) = (interval(USED), interval(HOURS));
    used.set_missed_tick_behavior(MissedTickBehavior::Delay);
    hours.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = used.tick() => write_used(api).await,
            _ = hours.tick() => api.limits.forget(),
        }
    }
}

async fn write_used(api: &Api) {
    if let Err(error) = api.keys.write_used().await {
        warn!(error = %error, "when keys were last used could not be written");
    }
}
