//! Sleeps until the next schedule is due by the database's clock, and fires it. A new schedule is
//! heard of; a poll each second is the net under that.

use std::{sync::Arc, time::Duration};

use streamspace_queue::{
    Queue,
    bus::Hear,
    notice::Notices,
    retention,
    schedule::{self, Schedules, Troubled},
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

const AT_MOST: Duration = Duration::from_secs(1);
/// What is due and was not fired is another scheduler's at this moment.
const ANOTHERS: Duration = Duration::from_millis(20);

/// How often the months of the ledger are looked at. They reach far ahead, but not as far as a
/// standstill of months, or a backup from before one.
const MONTHS_EVERY: Duration = Duration::from_secs(3600);
const MONTHS_AGAIN: Duration = Duration::from_secs(10);

/// Wakes the loop when something may be due earlier than it knows.
#[derive(Default)]
struct Ear {
    wake: Notify,
}

impl Hear for Ear {
    fn hear(&self, notices: &Notices) {
        if notices.due.is_some() || notices.everything {
            self.wake.notify_one();
        }
    }
}

pub(crate) async fn run(queue: Queue, schedules: Arc<Schedules>, stop: CancellationToken) {
    let ear = Arc::new(Ear::default());
    let hear: Arc<dyn Hear> = ear.clone();
    queue.bus().join(Arc::downgrade(&hear));
    let mut declared = false;
    let mut months_at = Instant::now();
    let mut troubled = Troubled::default();
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = ear.wake.notified() => {}
            () = stop.cancelled() => return,
        }
        if Instant::now() >= months_at {
            let rest = if keep_months(&queue).await { MONTHS_EVERY } else { MONTHS_AGAIN };
            months_at = Instant::now() + rest;
        }
        if !declared {
            declared = declare(&queue, &schedules).await;
        }
        wait = match schedule::fire_due(&queue, &schedules, &mut troubled).await {
            Ok(round) if round.schedules == 0 && round.next_in == Some(Duration::ZERO) => ANOTHERS,
            Ok(round) => round.next_in.unwrap_or(AT_MOST).min(AT_MOST),
            Err(error) => {
                warn!(%error, "what is due could not be read");
                AT_MOST
            }
        };
    }
}

/// No tick can be fired in a month that the ledger does not have; answers whether it has them.
async fn keep_months(queue: &Queue) -> bool {
    let kept = async {
        let mut tx = queue.db().begin().await?;
        let kept = retention::keep_months(&mut tx).await?;
        tx.commit().await?;
        Ok::<_, sqlx::Error>(kept)
    };
    kept.await.unwrap_or_else(|error| {
        warn!(%error, "the months of the ledger are not kept yet");
        false
    })
}

/// Stores the built-in schedules; answers whether that is done with.
async fn declare(queue: &Queue, schedules: &Schedules) -> bool {
    let declared = async {
        let mut tx = queue.db().begin().await?;
        schedule::declare(&mut tx, schedules.built_in()).await?;
        Ok(tx.commit().await?)
    };
    match declared.await {
        Ok(()) => true,
        Err(schedule::ScheduleError::Db(error)) => {
            warn!(%error, "the built-in schedules are not stored yet");
            false
        }
        Err(error) => {
            error!(%error, "a built-in schedule is wrong");
            true
        }
    }
}
