//! The nets: what was left behind, and what no notice told of.
//!
//! They look at much, and an old snapshot or somebody's lock makes them slow. So they have a loop of their
//! own, for which neither controls nor cancels nor the death of a worker wait.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::TenantId;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::{
    Engine,
    reap::{any_orphans, rescue},
};
use crate::{
    db::ANSWER,
    keys,
    notice::{Lane, Notices},
};

const EVERY: Duration = Duration::from_secs(1);
/// Each sweep takes at most one part in so many of the time.
const SELDOM: u32 = 20;

/// When a sweep is due again.
struct Due(Instant);

impl Due {
    /// Sweeps when it is time. Whether or not it succeeds, what took long rests for long.
    async fn sweep(&mut self, engine: &Engine, what: &str, work: impl Future<Output = sqlx::Result<()>>) {
        if Instant::now() < self.0 || engine.over.is_cancelled() {
            return;
        }
        let began = Instant::now();
        if let Err(error) = work.await {
            warn!(%error, "{what} could not be looked for");
        }
        self.0 = Instant::now() + began.elapsed() * SELDOM;
    }
}

impl Engine {
    pub(super) async fn sweep(self: Arc<Self>) {
        let now = || Due(Instant::now());
        let (mut orphans, mut unknown, mut stuck, mut lanes) = (now(), now(), now(), now());
        let mut scanned: Option<Lane> = None;
        loop {
            orphans.sweep(&self, "what dead workers left", self.take_orphans()).await;
            lanes.sweep(&self, "lanes with work", self.scan_lanes(&mut scanned)).await;
            unknown.sweep(&self, "jobs without hope", self.give_up_unknown()).await;
            stuck.sweep(&self, "jobs that wait for a free slot", self.unblock_stuck()).await;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.sweep.notified() => {}
                () = self.over.cancelled() => return,
            }
        }
    }

    async fn take_orphans(&self) -> sqlx::Result<()> {
        let take = async |conn: &mut PgConnection| {
            Ok(if any_orphans(&mut *conn).await? { rescue(conn).await? } else { Notices::default() })
        };
        self.queue.tell(self.queue.db().direct_within(ANSWER, take).await?);
        Ok(())
    }

    async fn unblock_stuck(&self) -> sqlx::Result<()> {
        let keys = self.queue.db().direct_within(ANSWER, async |conn| keys::stuck(conn).await).await?;
        self.queue.tell(Notices { unblock: keys.into_iter().collect(), ..Notices::default() });
        Ok(())
    }

    /// Learns lanes and places that no notice told of. Goes on where the last look had to stop.
    async fn scan_lanes(&self, after: &mut Option<Lane>) -> sqlx::Result<()> {
        let from = after.take();
        let found =
            self.queue.db().direct_within(ANSWER, async |conn| lanes(conn, from.as_ref()).await).await?;
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
        Ok(())
    }
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
