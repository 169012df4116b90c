//! Tells other processes what was committed: one task and one connection per process.
//!
//! NOTIFY inside a working transaction takes a database-wide lock until its commit is flushed,
//! which ends group commit for everyone. So transactions hand their notices over after the commit,
//! and this task sends at most one NOTIFY every 2 ms, or 6 ms when many have something to tell.

use std::{sync::Mutex, time::Duration};

use sqlx::{Connection, PgConnection};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::{
    bus::{Bus, Remote},
    db::{Db, within},
    keys,
    notice::Notices,
    wire,
};

const PACE: Duration = Duration::from_millis(2);
/// The pace once so many at a time have something to tell.
const BUSY_PACE: Duration = Duration::from_millis(6);
const BUSY: usize = 6;
const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Notifier {
    pending: Mutex<Pending>,
    work: Notify,
}

#[derive(Default)]
struct Pending {
    notices: Notices,
    /// How many had something to tell.
    sends: usize,
}

impl Notifier {
    pub(crate) fn new() -> Self {
        Self { pending: Mutex::default(), work: Notify::new() }
    }

    pub(crate) fn send(&self, notices: Notices) {
        {
            let mut pending = self.pending.lock().expect("no panic while it was held");
            pending.notices.merge(notices);
            pending.sends += 1;
        }
        self.work.notify_one();
    }

    fn take(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock().expect("no panic while it was held"))
    }

    /// Runs until `stop`, then sends what is left.
    pub(crate) async fn run(&self, db: Db, bus: Bus, me: Uuid, stop: CancellationToken) {
        let mut connection: Option<PgConnection> = None;
        let (mut last, mut pace) = (Instant::now(), PACE);
        loop {
            tokio::select! {
                () = self.work.notified() => {}
                () = stop.cancelled() => {
                    self.flush(&db, &bus, me, &mut connection).await;
                    return;
                }
            }
            // The first notice after a quiet time leaves at once; the next wait for company.
            tokio::time::sleep_until(last + pace).await;
            let sends = self.flush(&db, &bus, me, &mut connection).await;
            pace = if sends >= BUSY { BUSY_PACE } else { PACE };
            last = Instant::now();
        }
    }

    async fn flush(&self, db: &Db, bus: &Bus, me: Uuid, connection: &mut Option<PgConnection>) -> usize {
        let Pending { mut notices, sends } = self.take();
        let freed: Vec<String> = std::mem::take(&mut notices.unblock).into_iter().collect();
        self.tell(db, bus, me, connection, notices).await;
        if freed.is_empty() {
            return sends;
        }
        match Self::unblock(db, connection, &freed).await {
            Ok(unblocked) => {
                bus.tell_engines(&unblocked);
                self.tell(db, bus, me, connection, unblocked).await;
            }
            Err(error) => {
                *connection = None;
                // The sweep of every worker finds them within seconds.
                warn!(%error, "could not unblock {} keys", freed.len());
            }
        }
        sends
    }

    async fn unblock(
        db: &Db,
        connection: &mut Option<PgConnection>,
        keys: &[String],
    ) -> sqlx::Result<Notices> {
        let conn = Self::open(db, connection).await?;
        within(TIMEOUT, keys::unblock(conn, keys)).await
    }

    async fn tell(
        &self,
        db: &Db,
        bus: &Bus,
        me: Uuid,
        connection: &mut Option<PgConnection>,
        notices: Notices,
    ) {
        if notices.is_empty() {
            return;
        }
        let (engine, mut live) = wire::encode(me, &notices);
        if let Remote::Redis(redis) = bus.remote() {
            redis.publish(std::mem::take(&mut live));
        }
        let mut messages: Vec<(&str, String)> = engine.into_iter().map(|p| (wire::ENGINE, p)).collect();
        messages.extend(live.into_iter().map(|p| (wire::LIVE, p)));
        if messages.is_empty() {
            return;
        }
        if let Err(error) = Self::notify(db, connection, &messages).await {
            *connection = None;
            warn!(%error, "a notice was not sent; polls will find what it told");
        }
    }

    async fn notify(
        db: &Db,
        connection: &mut Option<PgConnection>,
        messages: &[(&str, String)],
    ) -> sqlx::Result<()> {
        let open = Self::open(db, connection).await?;
        let (channels, payloads): (Vec<&str>, Vec<&str>) =
            messages.iter().map(|(channel, payload)| (*channel, payload.as_str())).unzip();
        let send = sqlx::query("select pg_notify(c, p) from unnest($1::text[], $2::text[]) as m(c, p)")
            .bind(&channels)
            .bind(&payloads)
            .execute(open);
        within(TIMEOUT, send).await.map(drop)
    }

    async fn open<'c>(
        db: &Db,
        connection: &'c mut Option<PgConnection>,
    ) -> sqlx::Result<&'c mut PgConnection> {
        Ok(match connection {
            Some(open) => open,
            closed => {
                let options = db.direct().connect_options();
                let mut open = within(TIMEOUT, PgConnection::connect_with(&options)).await?;
                // What a crash of the server loses here costs a poll or a sweep, so it need not wait
                // for the disk.
                let set = sqlx::query("set synchronous_commit = off").execute(&mut open);
                within(TIMEOUT, set).await?;
                closed.insert(open)
            }
        })
    }
}
