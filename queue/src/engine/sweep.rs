//! The nets: what was left behind, and what no notice told of.
//!
//! They look at much, and an old snapshot or somebody's lock makes them slow. So they have a loop of their
//! own, for which neither controls nor cancels nor the jobs of dead workers wait.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::TenantId;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::{Engine, unknown::give_up};
use crate::{
    db::{ANSWER, is_silence},
    keys,
    notice::{Lane, Notices},
};

pub(super) const EVERY: Duration = Duration::from_secs(1);
/// Each sweep takes at most one part in so many of the time.
const SELDOM: u32 = 20;

/// What a look brought.
#[derive(Default)]
pub(super) struct Found {
    pub notices: Notices,
    /// It is as much as one look takes: there is more, probably.
    pub full: bool,
}

/// When a sweep is due again.
pub(super) struct Due {
    last: Instant,
    next: Instant,
}

impl Due {
    pub(super) fn now() -> Self {
        Self { last: Instant::now(), next: Instant::now() }
    }

    /// Sweeps when it is time. Whether or not it succeeds, a statement that took long rests for long; a
    /// database that is away took none of its time, and is asked again at the next round. Answers whether it
    /// has looked.
    pub(super) async fn sweep(
        &mut self,
        engine: &Engine,
        what: &str,
        look: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<Found>,
    ) -> bool {
        if Instant::now() < self.next || engine.over.is_cancelled() {
            return false;
        }
        let mut began = None;
        let timed = async |conn: &mut PgConnection| {
            began = Some(Instant::now());
            look(conn).await
        };
        let found = engine.queue.db().direct_within(ANSWER, timed).await;
        self.last = Instant::now();
        let took = began.map_or(Duration::ZERO, |began| self.last - began);
        let has_looked = found.is_ok();
        let rest = match found {
            Ok(found) => {
                engine.queue.tell(found.notices);
                if found.full { Duration::ZERO } else { took * SELDOM }
            }
            Err(error) => {
                warn!(%error, "{what} could not be looked for");
                if is_silence(&error) { took * SELDOM } else { EVERY }
            }
        };
        self.next = self.last + rest;
        has_looked
    }

    /// However long it was to rest: a second is enough.
    pub(super) fn hurry(&mut self) {
        self.next = self.next.min(self.last + EVERY);
    }
}

impl Engine {
    pub(super) async fn sweep(self: Arc<Self>) {
        let (mut lanes, mut unknown, mut stuck) = (Due::now(), Due::now(), Due::now());
        let mut scanned: Option<Lane> = None;
        loop {
            let scan = async |conn: &mut PgConnection| self.scan_lanes(conn, &mut scanned).await;
            lanes.sweep(&self, "lanes with work", scan).await;
            let unknown_after = self.options.unknown_after;
            let give_up = async |conn: &mut PgConnection| give_up(conn, unknown_after).await;
            unknown.sweep(&self, "jobs without hope", give_up).await;
            stuck.sweep(&self, "jobs that wait for a free slot", find_stuck).await;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.sweep.notified() => {}
                () = self.over.cancelled() => return,
            }
            if self.missed.swap(false, Ordering::AcqRel) {
                lanes.hurry();
            }
        }
    }

    /// Lanes may have work that nobody will tell of: they are looked for, though that rests.
    pub(super) fn look_for_lanes(&self) {
        self.missed.store(true, Ordering::Release);
        self.sweep.notify_one();
    }

    /// Learns lanes and places that no notice told of. Goes on where the last look had to stop.
    async fn scan_lanes(&self, conn: &mut PgConnection, after: &mut Option<Lane>) -> sqlx::Result<Found> {
        let from = after.take();
        let found = lanes(conn, from.as_ref()).await?;
        if found.len() == LANES {
            *after = found.last().map(|(lane, _)| lane.clone());
        }
        let mut new = false;
        let mut lanes = self.lanes.lock().expect("no panic while it was held");
        for (lane, first) in found {
            if self.serves(&lane) {
                new |= lanes.find(&lane, first);
            }
        }
        drop(lanes);
        if new {
            self.fetch.notify_one();
        }
        Ok(Found::default())
    }
}

async fn find_stuck(conn: &mut PgConnection) -> sqlx::Result<Found> {
    let keys = keys::stuck(conn).await?;
    let full = keys.len() == keys::MOST_STUCK;
    Ok(Found { notices: Notices { unblock: keys.into_iter().collect(), ..Notices::default() }, full })
}

/// Lanes of one look.
const LANES: usize = 5_000;

/// Every lane that has claimable jobs and the place of its first, by a loose scan of the claim index:
/// one probe a lane, not one step a job.
async fn lanes(conn: &mut PgConnection, after: Option<&Lane>) -> sqlx::Result<Vec<(Lane, Timestamp)>> {
    let rows = sqlx::query!(
        r#"with recursive lanes as (
             (select lane, tenant_id, order_at from jobs where state = 'queued' and (lane, tenant_id) > ($1, $2)
              order by lane, tenant_id, order_at limit 1)
             union all
             select n.lane, n.tenant_id, n.order_at from lanes l
             cross join lateral (
               select j.lane, j.tenant_id, j.order_at from jobs j
               where j.state = 'queued' and (j.lane, j.tenant_id) > (l.lane, l.tenant_id)
               order by j.lane, j.tenant_id, j.order_at limit 1) n)
           select lane as "lane!", tenant_id as "tenant!: TenantId", order_at as "order_at!"
           from lanes limit $3"#,
        after.map_or("", |lane| lane.name.as_str()),
        after.map_or(Uuid::nil(), |lane| lane.tenant.0),
        LANES as i64,
    )
    .fetch_all(conn)
    .await?;
    let found = |tenant, lane, at: jiff_sqlx::Timestamp| (Lane { name: lane, tenant }, at.to_jiff());
    Ok(rows.into_iter().map(|row| found(row.tenant, row.lane, row.order_at)).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use streamspace_testkit::Postgres;

    use super::*;
    use crate::WorkerOptions;

    const LONG: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn what_took_long_rests_for_long_unless_there_is_more() {
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        let postgres = Postgres::shared().await;
        let database =
            postgres.template(&migrations).await.expect("a template").database().await.expect("a database");
        let engine = Engine::bare_on(database.url(), WorkerOptions::default());
        for full in [false, true] {
            let mut due = Due::now();
            let slow = async |_: &mut PgConnection| {
                tokio::time::sleep(LONG).await;
                Ok(Found { full, ..Found::default() })
            };
            due.sweep(&engine, "something", slow).await;
            let rests = due.next - due.last;
            assert!(if full { rests.is_zero() } else { rests >= LONG * SELDOM }, "{rests:?}");
            due.hurry();
            assert!(due.next <= due.last + EVERY);
        }
    }

    /// The wait for a connection says nothing of what a look costs.
    #[tokio::test]
    async fn a_database_that_is_away_is_asked_again_soon() {
        let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = deaf.local_addr().expect("bound").port();
        let url = format!("postgres://nobody@127.0.0.1:{port}/none");
        let engine = Engine::bare_on(&url, WorkerOptions::default());
        let mut due = Due::now();
        let began = Instant::now();
        due.sweep(&engine, "something", async |_: &mut PgConnection| Ok(Found::default())).await;
        assert!(began.elapsed() > EVERY, "it waited");
        assert!(due.next - due.last <= EVERY, "{:?}", due.next - due.last);
    }
}
