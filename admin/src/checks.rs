//! What a process depends on, and how it stands.

use std::{
    collections::BTreeMap,
    fmt::Display,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt, join_all};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

/// A check that takes longer has failed: whoever asks has a deadline too.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers are shared for this long, so that asking often costs the database nothing.
const FRESH: Duration = Duration::from_secs(1);

/// Ordered from best to worst; a process is as well as its worst check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Healthy,
    /// It serves, with less than it could have.
    Degraded,
    Unhealthy,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckResult {
    pub status: Status,
    pub latency_ms: u64,
    /// Why it is not healthy. It may name hosts, so only the admin listener tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer of every health operation.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub status: Status,
    pub version: &'static str,
    pub uptime_seconds: u64,
    pub checks: BTreeMap<&'static str, CheckResult>,
}

impl Health {
    pub fn is_serving(&self) -> bool {
        self.status != Status::Unhealthy
    }

    /// For strangers: without reasons.
    pub fn public(mut self) -> Self {
        self.checks.values_mut().for_each(|check| check.reason = None);
        self
    }
}

struct Check {
    name: &'static str,
    /// What its failure makes of the process.
    failed: Status,
    run: Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

/// The checks of one process. Clones share it.
#[derive(Clone)]
pub struct Checks {
    started: Instant,
    checks: Arc<Vec<Check>>,
    latest: Arc<Mutex<Option<(Instant, Health)>>>,
}

impl Default for Checks {
    fn default() -> Self {
        Self::new()
    }
}

impl Checks {
    pub fn new() -> Self {
        Self { started: Instant::now(), checks: Arc::default(), latest: Arc::default() }
    }

    /// Without it nothing can be served.
    pub fn required<F, R, E>(self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        self.with(name, Status::Unhealthy, check)
    }

    /// Without it the process serves less well.
    pub fn optional<F, R, E>(self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        self.with(name, Status::Degraded, check)
    }

    /// Not ready from the moment at which `draining` is cancelled, so that balancers send no more.
    pub fn until(self, draining: CancellationToken) -> Self {
        self.required("accepting", move || {
            let draining = draining.is_cancelled();
            async move { if draining { Err("the process is stopping") } else { Ok(()) } }
        })
    }

    fn with<F, R, E>(self, name: &'static str, failed: Status, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        let run = Box::new(move || check().map(|done| done.map_err(|e| e.to_string())).boxed());
        let mut checks = Arc::into_inner(self.checks).expect("checks are added before they are shared");
        checks.push(Check { name, failed, run });
        Self { checks: Arc::new(checks), ..self }
    }

    /// The process runs; nothing else is looked at.
    pub fn live(&self) -> Health {
        self.health(BTreeMap::new())
    }

    /// All checks, run side by side.
    pub async fn run(&self) -> Health {
        let mut latest = self.latest.lock().await;
        if let Some((_, health)) = latest.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return health.clone();
        }
        let results = join_all(self.checks.iter().map(Check::result)).await;
        let health = self.health(results.into_iter().collect());
        *latest = Some((Instant::now(), health.clone()));
        health
    }

    fn health(&self, checks: BTreeMap<&'static str, CheckResult>) -> Health {
        Health {
            status: checks.values().map(|check| check.status).max().unwrap_or(Status::Healthy),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.started.elapsed().as_secs(),
            checks,
        }
    }
}

impl Check {
    async fn result(&self) -> (&'static str, CheckResult) {
        let start = Instant::now();
        let reason = match tokio::time::timeout(PATIENCE, (self.run)()).await {
            Ok(Ok(())) => None,
            Ok(Err(reason)) => Some(reason),
            Err(_) => Some(format!("no answer within {PATIENCE:?}")),
        };
        let status = if reason.is_none() { Status::Healthy } else { self.failed };
        let latency_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        (self.name, CheckResult { status, latency_ms, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn good() -> Result<(), String> {
        Ok(())
    }

    async fn bad() -> Result<(), &'static str> {
        Err("connection refused by db.internal")
    }

    #[tokio::test]
    async fn a_process_is_as_well_as_its_worst_check() {
        assert_eq!(Checks::new().required("database", good).run().await.status, Status::Healthy);
        let degraded = Checks::new().required("database", good).optional("redis", bad);
        let health = degraded.run().await;
        assert!(health.status == Status::Degraded && health.is_serving());
        let broken = Checks::new().required("database", bad).optional("redis", bad).run().await;
        assert!(!broken.is_serving());
    }

    #[tokio::test]
    async fn strangers_get_no_reasons() {
        let health = Checks::new().required("database", bad).run().await;
        assert!(health.checks["database"].reason.is_some());
        let text = serde_json::to_string(&health.public()).expect("plain data");
        assert!(!text.contains("db.internal"), "{text}");
        assert!(text.contains(r#""uptimeSeconds":0"#) && text.contains(r#""latencyMs":0"#), "{text}");
    }

    #[tokio::test]
    async fn a_check_that_hangs_has_failed() {
        let hanging = Checks::new().required("database", std::future::pending::<Result<(), String>>);
        assert!(!hanging.run().await.is_serving());
    }

    #[tokio::test]
    async fn a_stopping_process_is_not_ready() {
        let draining = CancellationToken::new();
        let checks = Checks::new().until(draining.clone());
        draining.cancel();
        assert!(!checks.run().await.is_serving());
        assert!(checks.live().is_serving());
    }
}
