//! What every handler may use.

use std::{ops::Deref, sync::Arc};

use streamspace_admin::Checks;
use streamspace_common::{Config, MasterKeys, config::Networks};
use streamspace_domain::{
    callers::Callers,
    oidc::{IdentityProviders, Oidc},
    settings,
    sign_in::SignIns,
};
use streamspace_queue::{Queue, Registry, schedule::Schedules};
use tokio_util::sync::CancellationToken;

use crate::{browser::Site, calls::Calls, limit::HourlyLimits, used::Used, watch::Watcher};

/// What the API is made of.
pub struct Parts {
    pub queue: Queue,
    /// Which kinds of jobs there are: which queues they use…
    pub registry: Registry,
    /// …and which of them can be scheduled.
    pub schedules: Schedules,
    pub checks: Checks,
    /// What opens the secrets that are stored.
    pub master: MasterKeys,
    /// Who else vouches for people.
    pub identity_providers: Arc<dyn IdentityProviders>,
    /// From then on no new requests are taken, and streams end.
    pub stop: CancellationToken,
}

/// The API of one process. Clones share it.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

pub struct Inner {
    pub(crate) queue: Queue,
    pub(crate) registry: Registry,
    pub(crate) schedules: Schedules,
    pub(crate) checks: Checks,
    pub(crate) callers: Callers,
    pub(crate) sign_ins: SignIns,
    pub(crate) oidc: Oidc,
    pub(crate) used: Used,
    pub(crate) site: Site,
    pub(crate) limits: HourlyLimits,
    pub(crate) settings: settings::Defaults,
    /// Requests an hour of a key that is made without a limit.
    pub(crate) key_limit: u32,
    pub(crate) calls: Calls,
    pub(crate) watcher: Watcher,
    pub(crate) body_limit: usize,
    pub(crate) trusted_proxies: Option<Networks>,
    pub(crate) stop: CancellationToken,
}

impl Deref for Api {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Api {
    /// Needs a runtime: the watcher starts with it and ends with `stop`.
    pub fn new(config: &Config, parts: Parts) -> Self {
        let Parts { queue, registry, schedules, checks, master, identity_providers, stop } = parts;
        let sign_ins = SignIns::new(queue.clone(), master.clone(), config);
        let oidc = Oidc::new(queue.clone(), master, identity_providers, sign_ins.clone(), config);
        let callers = Callers::new(queue.clone(), sign_ins.tokens().clone(), config.auth.mfa_required);
        Self(Arc::new(Inner {
            watcher: Watcher::start(queue.clone(), callers.clone(), stop.clone()),
            registry,
            schedules,
            queue,
            checks,
            callers,
            sign_ins,
            oidc,
            used: Used::default(),
            site: Site::of(config),
            limits: HourlyLimits::default(),
            settings: config.into(),
            key_limit: config.limits.api_key_per_hour,
            calls: Calls::default(),
            trusted_proxies: config.server.trusted_proxies.clone(),
            body_limit: config.server.body_limit.as_usize(),
            stop,
        }))
    }
}
