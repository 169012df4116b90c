//! Hears what other processes committed: one connection per process, on the direct URL.

use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::{bus::Bus, db::Db, notice::Notices, wire};

const RECONNECT: Duration = Duration::from_millis(500);

pub(crate) async fn run(db: Db, bus: Bus, me: Uuid, channels: Vec<&'static str>, stop: CancellationToken) {
    let mut connected_before = false;
    while !stop.is_cancelled() {
        let lost = tokio::select! {
            lost = listen(&db, &bus, me, &channels, &mut connected_before) => lost,
            () = stop.cancelled() => return,
        };
        if let Err(error) = lost {
            warn!(%error, "the listener lost the database; polls carry on until it is back");
        }
        tokio::select! {
            () = tokio::time::sleep(RECONNECT) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Returns when the connection is lost.
async fn listen(
    db: &Db,
    bus: &Bus,
    me: Uuid,
    channels: &[&'static str],
    connected_before: &mut bool,
) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(db.direct()).await?;
    // By default it reconnects by itself and silently; what was said in between would be missed.
    listener.ignore_pool_close_event(true);
    listener.listen_all(channels.iter().copied()).await?;
    if std::mem::replace(connected_before, true) {
        info!("the listener is back");
        bus.tell_engines(&Notices { everything: true, controls: true, ..Notices::default() });
        bus.resync();
    }
    loop {
        let Some(notification) = listener.try_recv().await? else {
            return Ok(());
        };
        let Some(notices) = wire::decode(me, notification.payload()) else { continue };
        if notices.everything && notification.channel() == wire::LIVE {
            bus.resync();
        } else {
            bus.tell(&notices);
        }
    }
}
