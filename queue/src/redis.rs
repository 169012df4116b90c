//! Live events over Redis, when it is configured. Lost messages are lost: whoever watches re-reads.

use std::time::Duration;

use futures::StreamExt;
use redis::{AsyncCommands, Client, aio::ConnectionManager};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::{bus::Bus, wire};

const RECONNECT: Duration = Duration::from_millis(500);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// Payloads that wait while Redis is slow; past them the oldest news are no news.
const WAITING: usize = 256;

/// Hands payloads to the task that publishes them; never waits.
#[derive(Clone)]
pub(crate) struct Publisher(mpsc::Sender<String>);

impl Publisher {
    pub(crate) fn start(client: Client, stop: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(publish(client, receiver, stop));
        Self(sender)
    }

    pub(crate) fn publish(&self, payloads: Vec<String>) {
        for payload in payloads {
            if self.0.try_send(payload).is_err() {
                metrics::counter!("streamspace_live_dropped_total").increment(1);
            }
        }
    }
}

async fn publish(client: Client, mut payloads: mpsc::Receiver<String>, stop: CancellationToken) {
    let mut connection: Option<ConnectionManager> = None;
    loop {
        let payload = tokio::select! {
            payload = payloads.recv() => payload,
            () = stop.cancelled() => return,
        };
        let Some(payload) = payload else { return };
        let sent = tokio::time::timeout(PUBLISH_TIMEOUT, async {
            let open = match &mut connection {
                Some(open) => open,
                None => connection.insert(client.get_connection_manager().await?),
            };
            open.publish::<_, _, ()>(wire::LIVE, payload).await
        })
        .await;
        if !matches!(sent, Ok(Ok(()))) {
            connection = None;
            metrics::counter!("streamspace_live_dropped_total").increment(1);
        }
    }
}

pub(crate) async fn listen(client: Client, bus: Bus, me: Uuid, stop: CancellationToken) {
    let mut connected_before = false;
    loop {
        tokio::select! {
            lost = subscribe(&client, &bus, me, &mut connected_before) => {
                if let Err(error) = lost {
                    // The error names no credentials: redis-rs keeps them out of its messages.
                    warn!(%error, "live events from Redis stopped; they arrive within a second without it");
                }
            }
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(RECONNECT) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn subscribe(
    client: &Client,
    bus: &Bus,
    me: Uuid,
    connected_before: &mut bool,
) -> redis::RedisResult<()> {
    let mut subscription = client.get_async_pubsub().await?;
    subscription.subscribe(wire::LIVE).await?;
    if std::mem::replace(connected_before, true) {
        info!("live events from Redis are back");
        bus.resync();
    }
    let mut messages = subscription.on_message();
    while let Some(message) = messages.next().await {
        let payload: String = message.get_payload()?;
        match wire::decode(me, &payload) {
            Some(notices) if notices.everything => bus.resync(),
            Some(notices) => bus.tell(&notices),
            None => {}
        }
    }
    Ok(())
}
