//! The watcher's loop: hints as they come, the net once a second.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use streamspace_common::JobId;
use streamspace_domain::callers::Callers;
use streamspace_queue::{
    Queue,
    bus::Live,
    inspect::{self, Scope},
    notice::Topic,
};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{client::Ended, hub::Hub};

const BEAT: Duration = Duration::from_secs(1);
/// Rights that nobody could confirm for this long open nothing more.
const UNCONFIRMED: Duration = Duration::from_secs(4);
/// New jobs are looked for this far back: ids are made before their commit.
const LOOK_BACK: Duration = Duration::from_secs(10);
/// Rows that one statement reads.
const CHUNK: usize = 500;
/// For whose buffer fills, and for all of them together in one reading.
const MOMENT: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn run(hub: Arc<Hub>, queue: Queue, callers: Callers, stop: CancellationToken) {
    let mut live = queue.bus().subscribe();
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut confirmed = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return hub.end_all(Ended::Stopping),
            heard = live.recv() => {
                let mut news = HashSet::new();
                let mut resync = gather(&hub, heard, &mut news);
                // What came while the last rows were read is read together.
                while let Ok(more) = live.try_recv() {
                    resync |= gather(&hub, Ok(more), &mut news);
                }
                match timeout(UNCONFIRMED, read(&hub, &queue, news)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        warn!(error = %error, "changed jobs could not be read; the next look finds them");
                    }
                    Err(_) => warn!("changed jobs were not read within {UNCONFIRMED:?}; trying again"),
                }
                if resync {
                    beat.reset_immediately();
                }
            }
            _ = beat.tick() => {
                match timeout(UNCONFIRMED, look(&hub, &queue, &callers, &mut confirmed)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => warn!(error = %error, "watched jobs could not be read; trying again"),
                    Err(_) => warn!("watched jobs were not read within {UNCONFIRMED:?}; trying again"),
                }
                if confirmed.elapsed() > UNCONFIRMED {
                    hub.end_all(Ended::Unconfirmed);
                }
            }
        }
    }
}

/// Adds what anybody would hear of; answers whether something was missed.
fn gather(hub: &Hub, heard: Result<Live, RecvError>, news: &mut HashSet<JobId>) -> bool {
    match heard {
        Ok(Live::Event(event)) => {
            let job = JobId(event.id);
            if event.topic == Topic::Job && hub.is_news(job, event.version) {
                news.insert(job);
            }
            false
        }
        Ok(Live::Resync) | Err(RecvError::Lagged(_)) => true,
        Err(RecvError::Closed) => false,
    }
}

async fn read(hub: &Hub, queue: &Queue, jobs: impl IntoIterator<Item = JobId>) -> sqlx::Result<()> {
    let jobs: Vec<_> = jobs.into_iter().collect();
    let patience = Instant::now() + PATIENCE;
    for chunk in jobs.chunks(CHUNK) {
        // Each client's own rights are asked of the row.
        let mut rows = inspect::many(&mut *queue.read().await?, Scope::Installation, chunk).await?;
        // Rows come newest first, and clients read in order: the oldest is at the end.
        while let Some(oldest) = rows.pop() {
            if hub.hand_out(oldest) {
                let_them_read(hub, patience).await;
            }
        }
    }
    Ok(())
}

/// A burst is no reason to end a client that keeps up: buffers that fill get a moment to be emptied.
/// A client that takes nothing in that moment gets no other one.
async fn let_them_read(hub: &Hub, patience: Instant) {
    let moment = (Instant::now() + MOMENT).min(patience);
    while hub.is_crowded() {
        if Instant::now() >= moment {
            return hub.give_up_on_the_crowded();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The net: who may still watch, what has changed, what is new.
async fn look(hub: &Hub, queue: &Queue, callers: &Callers, confirmed: &mut Instant) -> sqlx::Result<()> {
    let asked = Instant::now();
    let watched = hub.watched();
    if watched.credentials.is_empty() {
        *confirmed = asked;
        return Ok(());
    }
    hub.recheck(&callers.still(watched.credentials).await?, asked);
    *confirmed = asked;

    let jobs: Vec<_> = watched.jobs.keys().copied().collect();
    let mut conn = queue.read().await?;
    let versions =
        if jobs.is_empty() { Default::default() } else { inspect::versions(&mut conn, &jobs).await? };
    let mut changed: Vec<JobId> = versions
        .iter()
        .filter(|(job, version)| watched.jobs.get(*job).is_some_and(|known| *known != Some(**version)))
        .map(|(job, _)| *job)
        .collect();
    if watched.wide {
        let tenants = watched.tenants.map(|tenants| tenants.into_iter().collect::<Vec<_>>());
        let new = inspect::made_since(&mut conn, tenants.as_deref(), LOOK_BACK).await?;
        changed.extend(new.into_iter().filter(|(job, version)| hub.is_news(*job, *version)).map(|new| new.0));
    }
    drop(conn);
    let gone: Vec<_> = jobs.into_iter().filter(|job| !versions.contains_key(job)).collect();
    hub.gone(&gone);
    read(hub, queue, changed).await
}
