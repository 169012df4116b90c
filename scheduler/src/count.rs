//! Counts what waits in each queue, while this process holds the lease, and exports it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use streamspace_common::BootId;
use streamspace_queue::{Queue, depth, schedule::Schedules};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const TICK: Duration = Duration::from_secs(2);
const LEASE: Duration = Duration::from_secs(8);
/// Counting takes a twentieth of the time at most, however much there is to count.
const REST: u32 = 20;

struct Counter {
    queue: Queue,
    me: BootId,
    /// Every queue that was ever seen: those of the kinds, and more.
    known: BTreeSet<String>,
    holds: bool,
    not_before: Instant,
}

pub(crate) async fn run(queue: Queue, schedules: Arc<Schedules>, me: BootId, stop: CancellationToken) {
    let known = schedules.registry().queues().into_iter().map(str::to_owned).collect();
    let mut counter = Counter { queue, me, known, holds: false, not_before: Instant::now() };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        if let Err(error) = counter.tick().await {
            warn!(%error, "the queues could not be counted");
        }
    }
    counter.give_up().await;
}

impl Counter {
    async fn tick(&mut self) -> sqlx::Result<()> {
        let mut tx = self.queue.db().begin().await?;
        let holds = depth::hold(&mut tx, depth::DUTY, self.me, LEASE).await?;
        tx.commit().await?;
        if holds != std::mem::replace(&mut self.holds, holds) {
            info!("{} counting the queues", if holds { "began" } else { "another scheduler is" });
            if !holds {
                // Whoever adds up what all schedulers say must not count twice.
                depth::export(&mut self.known, &[]);
            }
        }
        if !holds || Instant::now() < self.not_before {
            return Ok(());
        }
        let began = Instant::now();
        let mut tx = self.queue.db().begin().await?;
        depth::recount(&mut tx).await?;
        let depths = depth::depths(&mut tx).await?;
        tx.commit().await?;
        self.not_before = Instant::now() + began.elapsed() * REST;
        depth::export(&mut self.known, &depths);
        Ok(())
    }

    /// So that another need not wait for the lease to run out.
    async fn give_up(&mut self) {
        if !self.holds {
            return;
        }
        let released = async {
            let mut tx = self.queue.db().begin().await?;
            depth::release(&mut tx, depth::DUTY, self.me).await?;
            tx.commit().await
        };
        if let Err(error) = released.await {
            warn!(%error, "the lease of counting was not given up; it runs out");
        }
    }
}
