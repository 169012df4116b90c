//! The engine of a worker process: claims, runs, settles.
//!
//! ```text
//! fetch ──claims──▶ apalis's worker ──▶ execute ──▶ acknowledge
//!   ▲ wake-ups, free slots                 ▲ cancel, timeout      │ one batch at a time
//!   └── promote (what is due)   beat (the lease), pulse (controls), reap (deaths), sweep (nets) ──┘
//! ```
//!
//! There is one of each loop per process, whatever the number of kinds and queues. The loops run on
//! the process's main runtime and handlers on one of their own, so that a handler that blocks its
//! thread stops neither the beat nor the acknowledgements.

mod acknowledge;
mod backend;
mod beat;
mod controls;
mod drain;
mod execute;
mod fetch;
mod judge;
mod limited;
mod live;
mod promote;
mod pulse;
mod reap;
mod rights;
mod slots;
mod sweep;
mod unknown;

#[cfg(test)]
mod bare;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use apalis::prelude::{WorkerBuilder, WorkerContext};
use jiff::Timestamp;
use streamspace_common::{BootId, JobId};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    bus::Hear,
    handle::Queue,
    lanes::Lanes,
    notice::{Lane, Notices},
    registry::Registry,
};
use acknowledge::Ack;
use controls::Controls;
use live::{Live, Stop};
pub use rights::{Behind, MayAct, Rights};
use slots::Slots;

/// How a worker behaves. One field per configuration key of the section `jobs`.
#[derive(Clone)]
pub struct WorkerOptions {
    pub concurrency: usize,
    /// All when `None`.
    pub queues: Option<Vec<String>>,
    pub lease: Duration,
    pub heartbeat: Duration,
    /// How long running jobs may go on after a stop was asked for.
    pub shutdown_timeout: Duration,
    pub fair_share: f64,
    /// How long a job of a kind that nobody knows waits for a worker that does.
    pub unknown_after: Duration,
    /// An operator's drain does not end it: it is part of a process that goes on without it, in which
    /// nobody would start it again.
    pub stays: bool,
    pub host: String,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            concurrency: 32,
            queues: None,
            lease: Duration::from_secs(10),
            heartbeat: Duration::from_secs(3),
            shutdown_timeout: Duration::from_secs(30),
            fair_share: 0.5,
            unknown_after: Duration::from_secs(24 * 3600),
            stays: false,
            host: "localhost".into(),
        }
    }
}

/// A handler that runs on after it was told to stop and dropped. With this many the process is
/// better replaced.
const MOST_ABANDONED: usize = 8;

/// Why a worker ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop, or drained by an operator.
    Stopped,
    /// Too many handlers ignore cancellation; the process has to go for its threads to be freed.
    Abandoned,
    /// A part of it ended that should not: a mistake in the program, and in the log.
    Broken,
}

pub(crate) struct Engine {
    queue: Queue,
    registry: Registry,
    options: WorkerOptions,
    rights: Arc<dyn Rights>,
    /// Where handlers run.
    handlers: tokio::runtime::Handle,
    boot: RwLock<BootId>,
    lanes: Mutex<Lanes>,
    slots: Mutex<Slots>,
    controls: RwLock<Arc<Controls>>,
    attempts: Mutex<HashMap<JobId, Arc<Live>>>,
    acks: mpsc::UnboundedSender<Ack>,
    /// Ended, but not yet written.
    unacknowledged: AtomicUsize,
    abandoned: AtomicUsize,
    /// There is something to fetch, or room for it.
    fetch: Notify,
    /// The free slots that the fetcher waits for; fewer do not wake it.
    enough: AtomicUsize,
    /// Counts each claim when it begins and when what it got is among the attempts.
    claims: AtomicUsize,
    /// Who was told to stop during the claim under way, and may be among what it gets.
    early: Mutex<HashSet<JobId>>,
    /// Beats that are to look for the jobs of a claim whose answer was lost.
    looks: AtomicUsize,
    /// Something is due earlier than was known, and what is known: nothing while it is read.
    due: Notify,
    next_due: Mutex<Option<Timestamp>>,
    pulse: Notify,
    sweep: Notify,
    /// Notices were missed, or what a claim would have found.
    missed: AtomicBool,
    hopes: unknown::Hopes,
    /// A worker died.
    dead: Notify,
    /// Queues with limits in which a job ended.
    freed: Mutex<HashSet<String>>,
    /// Told to stop, not yet recorded.
    delivered: Mutex<Vec<(JobId, i64)>>,
    /// Pauses and limits are known, so claims may begin.
    informed: CancellationToken,
    /// No more claims.
    draining: CancellationToken,
    /// So many handlers were abandoned that the process has to go.
    worn_out: AtomicBool,
    /// The loops may end.
    over: CancellationToken,
}

/// Runs a worker until `stop` fires, an operator drains it, or it has to be replaced.
///
/// `handlers` is the runtime that job bodies run on.
pub async fn run_worker(
    queue: Queue,
    registry: Registry,
    rights: Arc<dyn Rights>,
    options: WorkerOptions,
    handlers: tokio::runtime::Handle,
    stop: CancellationToken,
) -> Ended {
    let (engine, to_write) = Engine::new(queue.clone(), registry, rights, options, handlers);
    let engine = Arc::new(engine);
    let hear: Arc<dyn Hear> = engine.clone();
    queue.bus().join(Arc::downgrade(&hear));

    // Known from the first reading on, so that a rate over them is one.
    for name in ["streamspace_rescued_total", "streamspace_stale_total", "streamspace_leases_lost_total"] {
        metrics::counter!(name).increment(0);
    }

    let mut loops = JoinSet::new();
    loops.spawn(engine.clone().acknowledge(to_write));
    // Registered before the first claim: a claim of an unknown worker is rescued from it.
    if !engine.register_unless(&stop).await {
        return Ended::Stopped;
    }
    loops.spawn(engine.clone().beat());
    loops.spawn(engine.clone().pulse());
    loops.spawn(engine.clone().reap());
    loops.spawn(engine.clone().sweep());
    loops.spawn(engine.clone().promote());
    loops.spawn(engine.clone().tend_slots());

    let context = WorkerContext::new("streamspace");
    let worker = WorkerBuilder::new(context.clone())
        .backend(backend::Claims::new(engine.clone()))
        .build(backend::Execute::new(engine.clone()));
    let mut running = tokio::spawn(worker.run());

    let mut fetching = tokio::spawn(engine.clone().fetch());
    let mut broken = false;
    tokio::select! {
        () = stop.cancelled() => info!("stopping: no more claims"),
        () = engine.draining.cancelled() => {}
        ended = &mut running => {
            error!(?ended, "apalis's worker ended by itself");
            broken = true;
        }
        ended = &mut fetching => {
            // Draining ends it.
            if !engine.draining.is_cancelled() {
                error!(?ended, "claiming ended by itself");
                broken = true;
            }
            fetching = tokio::spawn(async {});
        }
        ended = loops.join_next() => {
            error!(?ended, "a loop of the engine ended by itself");
            broken = true;
        }
    }
    engine.drain(fetching).await;
    // Nothing runs any more, so apalis's worker has nothing to wait for.
    if let Err(error) = context.stop() {
        warn!(%error, "apalis's worker would not stop");
    }
    if !running.is_finished() && tokio::time::timeout(Duration::from_secs(5), running).await.is_err() {
        warn!("apalis's worker did not end in time");
    }
    engine.over.cancel();
    while loops.join_next().await.is_some() {}
    engine.unregister().await;
    match (broken, engine.worn_out.load(Ordering::Acquire)) {
        (true, _) => Ended::Broken,
        (false, true) => Ended::Abandoned,
        (false, false) => Ended::Stopped,
    }
}

impl Engine {
    /// Beside it what is to be written: [`Engine::acknowledge`] takes it.
    fn new(
        queue: Queue,
        registry: Registry,
        rights: Arc<dyn Rights>,
        options: WorkerOptions,
        handlers: tokio::runtime::Handle,
    ) -> (Self, mpsc::UnboundedReceiver<Ack>) {
        let (acks, to_write) = mpsc::unbounded_channel();
        let slots = Slots::new(options.concurrency.max(1), options.fair_share);
        let engine = Self {
            queue,
            registry,
            options,
            rights,
            handlers,
            boot: RwLock::new(BootId::new()),
            lanes: Mutex::default(),
            slots: Mutex::new(slots),
            controls: RwLock::default(),
            attempts: Mutex::default(),
            acks,
            unacknowledged: AtomicUsize::new(0),
            abandoned: AtomicUsize::new(0),
            fetch: Notify::new(),
            enough: AtomicUsize::new(0),
            claims: AtomicUsize::new(0),
            early: Mutex::default(),
            looks: AtomicUsize::new(0),
            due: Notify::new(),
            next_due: Mutex::default(),
            pulse: Notify::new(),
            sweep: Notify::new(),
            missed: AtomicBool::new(false),
            hopes: unknown::Hopes::default(),
            dead: Notify::new(),
            freed: Mutex::default(),
            delivered: Mutex::default(),
            informed: CancellationToken::new(),
            draining: CancellationToken::new(),
            worn_out: AtomicBool::new(false),
            over: CancellationToken::new(),
        };
        (engine, to_write)
    }

    pub(crate) fn boot(&self) -> BootId {
        *self.boot.read().expect("no panic while it was held")
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().expect("no panic while it was held")
    }

    fn controls(&self) -> Arc<Controls> {
        self.controls.read().expect("no panic while it was held").clone()
    }

    /// Whether this worker looks into the lane: of its queues, and of kinds that it knows.
    fn serves(&self, lane: &Lane) -> bool {
        let queue = lane.queue();
        if self.options.queues.as_ref().is_some_and(|queues| !queues.iter().any(|mine| mine == queue)) {
            return false;
        }
        match lane.name.split_once('/') {
            None => true,
            Some((_, kind)) => kind.rsplit_once('@').is_some_and(|(kind, version)| {
                self.registry
                    .get(kind)
                    .is_some_and(|known| version.parse::<i16>().is_ok_and(|v| v <= known.policy().version))
            }),
        }
    }

    /// This attempt's own entry: the job may be here again by now, under another fence.
    fn remove_attempt(&self, job: JobId, fence: i64) -> Option<Arc<Live>> {
        let mut attempts = self.attempts.lock().expect("no panic while it was held");
        attempts
            .get(&job)
            .is_some_and(|live| live.hold.fence == fence)
            .then(|| attempts.remove(&job))
            .flatten()
    }

    fn live(&self) -> Vec<Arc<Live>> {
        self.attempts.lock().expect("no panic while it was held").values().cloned().collect()
    }

    /// Whether a job ended in this limited queue since it was asked last.
    fn take_freed(&self, queue: &str) -> bool {
        self.freed.lock().expect("no panic while it was held").remove(queue)
    }
}

impl Hear for Engine {
    fn hear(&self, notices: &Notices) {
        let mut woken = false;
        if !notices.claimable.is_empty() {
            let mut lanes = self.lanes.lock().expect("no panic while it was held");
            for (lane, at) in &notices.claimable {
                if self.serves(lane) {
                    lanes.wake(lane, *at);
                    woken = true;
                }
            }
        }
        if !notices.freed.is_empty() {
            self.freed.lock().expect("no panic while it was held").extend(notices.freed.iter().cloned());
            woken = true;
        }
        if woken {
            self.fetch.notify_one();
        }
        if let Some(due) = notices.due
            && self.next_due.lock().expect("no panic while it was held").is_none_or(|next| due < next)
        {
            self.due.notify_one();
        }
        let boot = self.boot();
        for (of, job) in &notices.cancel {
            if *of == boot {
                self.cancel(*job);
            }
        }
        if notices.everything || notices.controls {
            self.pulse.notify_one();
            self.due.notify_one();
        }
        if notices.everything {
            self.look_for_lanes();
        }
    }
}
