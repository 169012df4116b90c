//! [`Queue`]: what a process holds to enqueue, to read, and to be told of changes.

use std::{ops::Deref, sync::Arc, time::Duration};

use streamspace_common::Actor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    bus::{Bus, Remote},
    db::{Db, Reader},
    listener,
    notice::Notices,
    notifier::Notifier,
    tx::{Request, Tx},
    wire,
};

/// How long connections in use may keep a process from ending.
const CLOSE: Duration = Duration::from_secs(5);

/// The number by which releases are compared: jobs and workers carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub i64);

impl Release {
    /// This program's: 1.2.3 is 1_002_003.
    pub fn current() -> Self {
        let mut parts =
            env!("CARGO_PKG_VERSION").split(['.', '-']).map(|part| part.parse::<i64>().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        Self(next() * 1_000_000 + next() * 1_000 + next())
    }
}

/// What a process wants to hear.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listen {
    /// What can be claimed, must stop, is due: for workers and schedulers.
    pub engine: bool,
    /// What changed: for whoever streams to clients.
    pub live: bool,
}

#[derive(Clone)]
pub struct QueueOptions {
    pub release: Release,
    pub listen: Listen,
    /// Carries live events instead of NOTIFY.
    pub redis_url: Option<String>,
}

#[derive(Clone)]
pub struct Queue(Arc<Inner>);

pub struct Inner {
    db: Db,
    bus: Bus,
    notifier: Arc<Notifier>,
    release: Release,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Deref for Queue {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Queue {
    /// Starts the notifier and the listener. They live until [`Queue::close`].
    pub fn start(db: Db, options: QueueOptions) -> Result<Self, StartError> {
        let me = Uuid::now_v7();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let Listen { engine, mut live } = options.listen;

        let remote = match &options.redis_url {
            #[cfg(feature = "redis")]
            Some(url) => {
                // The URL may hold a password, so the error does not repeat it.
                let client = ::redis::Client::open(url.as_str()).map_err(|_| StartError::RedisUrl)?;
                Remote::Redis(crate::redis::Publisher::start(client, stop.clone()))
            }
            #[cfg(not(feature = "redis"))]
            Some(_) => return Err(StartError::RedisNotBuilt),
            None => Remote::Notify,
        };
        let bus = Bus::new(remote);
        #[cfg(feature = "redis")]
        if let (Some(url), true) = (&options.redis_url, live) {
            let client = ::redis::Client::open(url.as_str()).map_err(|_| StartError::RedisUrl)?;
            tasks.spawn(crate::redis::listen(client, bus.clone(), me, stop.clone()));
            live = false;
        }

        let notifier = Arc::new(Notifier::new());
        tasks.spawn({
            let (notifier, db, bus, stop) = (notifier.clone(), db.clone(), bus.clone(), stop.clone());
            async move { notifier.run(db, bus, me, stop).await }
        });
        let channels: Vec<_> =
            [engine.then_some(wire::ENGINE), live.then_some(wire::LIVE)].into_iter().flatten().collect();
        if !channels.is_empty() {
            tasks.spawn(listener::run(db.clone(), bus.clone(), me, channels, stop.clone()));
        }
        tasks.close();
        Ok(Self(Arc::new(Inner { db, bus, notifier, release: options.release, tasks, stop })))
    }

    /// A transaction for `actor`. It takes its connection at the first statement.
    pub fn begin(&self, actor: Actor, request: Request) -> Tx {
        Tx::new(self.clone(), actor, request)
    }

    /// Sends what is left to tell, and closes the connections.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
        // A handler that was abandoned may hold a connection for ever.
        if tokio::time::timeout(CLOSE, self.db.close()).await.is_err() {
            tracing::warn!("connections are still in use; they end with the process");
        }
    }
}

impl Inner {
    pub fn db(&self) -> &Db {
        &self.db
    }

    pub async fn read(&self) -> sqlx::Result<Reader> {
        self.db.read().await
    }

    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    pub fn release(&self) -> Release {
        self.release
    }

    /// Tells this process at once, and the others within 2 ms.
    pub(crate) fn tell(&self, notices: Notices) {
        if !notices.is_empty() {
            self.bus.tell(&notices);
            self.notifier.send(notices);
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("redis.url is not a Redis URL")]
    RedisUrl,
    #[error("redis.url is set, but this build has no Redis")]
    RedisNotBuilt,
}
