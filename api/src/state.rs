//! What every handler may use.

use std::{ops::Deref, sync::Arc};

use streamspace_admin::Checks;
use streamspace_common::{
    Config, MasterKeys,
    config::{Networks, Origins},
};
use streamspace_domain::{
    callers::Callers,
    links::Links,
    oidc::{IdentityProviders, Oidc},
    registration::Registrations,
    settings,
    sign_in::SignIns,
};
use streamspace_queue::{Queue, Registry, schedule::Schedules};
use tokio_util::sync::CancellationToken;

use crate::{
    browser::Site,
    calls::Calls,
    limit::{self, Limits},
    used::Used,
    watch::Watcher,
};

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
    pub(crate) links: Links,
    pub(crate) registrations: Registrations,
    pub(crate) used: Used,
    pub(crate) site: Site,
    pub(crate) limits: Arc<Limits>,
    pub(crate) settings: settings::Defaults,
    /// Requests an hour of a key that is made without a limit, and at most of one that is no administrator's.
    pub(crate) key_limit: u32,
    pub(crate) calls: Calls,
    pub(crate) watcher: Watcher,
    pub(crate) body_limit: usize,
    pub(crate) trusted_proxies: Option<Networks>,
    pub(crate) cors_origins: Option<Origins>,
    /// Clients reach us by TLS, as far as the configuration knows.
    pub(crate) over_tls: bool,
    pub(crate) stop: CancellationToken,
}

impl Deref for Api {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Api {
    /// Needs a runtime: the watcher and the sharing of limits start with it and end with `stop`.
    pub fn new(config: &Config, parts: Parts) -> Self {
        let Parts { queue, registry, schedules, checks, master, identity_providers, stop } = parts;
        let sign_ins = SignIns::new(queue.clone(), master.clone(), config);
        let oidc = Oidc::new(queue.clone(), master, identity_providers, sign_ins.clone(), config);
        let callers = Callers::new(queue.clone(), sign_ins.tokens().clone(), config.auth.mfa_required);
        let limits = Arc::new(Limits::new(&config.limits));
        if let Some(redis) = config.redis.url.clone() {
            tokio::spawn(limit::share(limits.clone(), redis, stop.clone()));
        }
        Self(Arc::new(Inner {
            links: Links::new(queue.clone(), sign_ins.clone()),
            watcher: Watcher::start(queue.clone(), callers.clone(), stop.clone()),
            registrations: Registrations::new(queue.clone(), sign_ins.clone(), config),
            registry,
            schedules,
            queue,
            checks,
            callers,
            sign_ins,
            oidc,
            used: Used::default(),
            site: Site::of(config),
            limits,
            settings: config.into(),
            key_limit: config.limits.api_key_per_hour,
            calls: Calls::default(),
            trusted_proxies: config.server.trusted_proxies.clone(),
            cors_origins: config.server.cors_origins.clone(),
            over_tls: config.server.is_over_tls(),
            body_limit: config.server.body_limit.as_usize(),
            stop,
        }))
    }
}
