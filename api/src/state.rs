//! What every handler may use.

use std::{sync::Arc, time::Instant};

use streamspace_admin::Checks;
use streamspace_common::Config;
use streamspace_domain::api_keys::Keys;
use streamspace_queue::{Queue, Registry};
use tokio_util::sync::CancellationToken;

use crate::{limit::HourlyLimits, watch::Watcher};

/// The API of one process. Clones share it.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

pub struct Inner {
    pub(crate) queue: Queue,
    /// The kinds of jobs that there are: which of them can be scheduled, which queues they use.
    pub(crate) registry: Registry,
    pub(crate) checks: Checks,
    pub(crate) keys: Keys,
    pub(crate) limits: HourlyLimits,
    pub(crate) watcher: Watcher,
    pub(crate) body_limit: usize,
    /// No new streams, and those that there are end.
    pub(crate) stop: CancellationToken,
    pub(crate) started: Instant,
}

impl std::ops::Deref for Api {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Api {
    /// Needs a runtime: the watcher starts with it and ends with `stop`.
    pub fn new(
        config: &Config,
        queue: Queue,
        registry: Registry,
        checks: Checks,
        stop: CancellationToken,
    ) -> Self {
        let keys = Keys::new(queue.clone());
        Self(Arc::new(Inner {
            watcher: Watcher::start(queue.clone(), keys.clone(), stop.clone()),
            queue,
            registry,
            checks,
            keys,
            limits: HourlyLimits::default(),
            body_limit: config.server.body_limit.as_usize(),
            stop,
            started: Instant::now(),
        }))
    }
}
