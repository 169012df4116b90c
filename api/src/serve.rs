//! The API on its port, and what it does beside answering.

use std::{io, net::SocketAddr, time::Duration};

use streamspace_domain::{idempotency, tickets};
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{router::router, state::Api};

/// How long requests that are being answered may take once the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Serves until the API's `stop`; then answers what has begun, and ends.
pub async fn serve(listener: TcpListener, api: Api) -> io::Result<()> {
    info!("API on http://{}", listener.local_addr()?);
    let stop = api.stop.clone();
    let service = router(api.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => served?,
        () = overdue => warn!("requests that were not answered within {DRAIN:?} are dropped"),
        () = keep_house(&api) => {}
    }
    write_used(&api).await;
    Ok(())
}

const USED: Duration = Duration::from_secs(5);
/// One round removes a thousand rows of each kind; a busy API does several.
const PRUNE_EVERY: u32 = 4;

/// Writes down which keys were used, and removes answers and tickets that have had their day.
async fn keep_house(api: &Api) {
    let mut round = interval(USED);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0_u32.. {
        round.tick().await;
        write_used(api).await;
        if n % PRUNE_EVERY == 0 {
            let pruned = async {
                idempotency::prune(&api.queue).await?;
                tickets::prune(&api.queue).await
            };
            if let Err(error) = pruned.await {
                warn!(error = %error, "old answers and tickets stay a little longer");
            }
        }
    }
}

async fn write_used(api: &Api) {
    if let Err(error) = api.keys.write_used().await {
        warn!(error = %error, "when keys were last used could not be written");
    }
}
