//! Which kinds a worker can run. A kind is registered by one line.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use crate::{
    attempt::Attempt,
    enqueue::{EnqueueError, Policy, Prepared},
    job::{Backoff, Job},
    outcome::{Done, Failure, chain},
};
use streamspace_common::TenantId;

/// Kinds by name. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: Arc<BTreeMap<&'static str, Arc<dyn Kind>>>,
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind with what its body needs.
    ///
    /// # Panics
    /// When the name is taken: two kinds under one name is a mistake in the program.
    #[must_use]
    pub fn register<J: Job>(mut self, ctx: Arc<J::Ctx>) -> Self {
        let kinds = Arc::make_mut(&mut self.kinds);
        let before = kinds.insert(J::KIND, Arc::new(Registered::<J> { ctx }));
        assert!(before.is_none(), "the kind {} is registered twice", J::KIND);
        self
    }

    pub(crate) fn get(&self, kind: &str) -> Option<&Arc<dyn Kind>> {
        self.kinds.get(kind)
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.kinds.keys().copied()
    }

    /// The queues that the kinds use by default.
    pub fn queues(&self) -> Vec<&'static str> {
        let mut queues: Vec<_> = self.kinds.values().map(|kind| kind.policy().queue).collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }

    /// How long the most patient kind may take to stop.
    pub(crate) fn longest_grace(&self) -> Duration {
        self.kinds.values().map(|kind| kind.grace()).max().unwrap_or_default()
    }

    /// `kind@version` for each version that can be read.
    pub(crate) fn versions(&self) -> Vec<String> {
        let of = |kind: &Arc<dyn Kind>| {
            let policy = kind.policy();
            (1..=policy.version).map(|version| format!("{}@{version}", policy.kind)).collect::<Vec<_>>()
        };
        self.kinds.values().flat_map(of).collect()
    }

    /// Kinds that people may put on a schedule, with the schema of their payload.
    pub fn schedulable(&self) -> impl Iterator<Item = (&'static str, Value)> {
        self.kinds.iter().filter_map(|(name, kind)| kind.schedulable().map(|schema| (*name, schema)))
    }

    /// Whether a job of the kind can be made of the payload: what a schedule checks when it is saved.
    pub fn check(&self, kind: &str, tenant: TenantId, args: &Value) -> Result<(), String> {
        match self.prepare(kind, tenant, args) {
            Some(prepared) => prepared.map(drop).map_err(|error| chain(&error)),
            None => Err(format!("there is no job kind {kind:?}")),
        }
    }

    pub(crate) fn prepare(
        &self,
        kind: &str,
        tenant: TenantId,
        args: &Value,
    ) -> Option<Result<(Policy, Prepared), EnqueueError>> {
        self.kinds.get(kind).map(|kind| kind.prepare(tenant, args))
    }
}

/// A kind without its type.
pub(crate) trait Kind: Send + Sync {
    fn policy(&self) -> Policy;
    fn backoff(&self) -> Backoff;
    fn grace(&self) -> Duration;
    fn for_a_person(&self) -> bool;
    fn schedulable(&self) -> Option<Value>;
    fn prepare(&self, tenant: TenantId, args: &Value) -> Result<(Policy, Prepared), EnqueueError>;
    fn run(&self, args: Box<RawValue>, attempt: Attempt) -> BoxFuture<'static, Result<Done, Failure>>;
}

struct Registered<J: Job> {
    ctx: Arc<J::Ctx>,
}

impl<J: Job> Kind for Registered<J> {
    fn policy(&self) -> Policy {
        Policy::of::<J>()
    }

    fn backoff(&self) -> Backoff {
        J::BACKOFF
    }

    fn grace(&self) -> Duration {
        J::GRACE
    }

    fn for_a_person(&self) -> bool {
        J::FOR_A_PERSON
    }

    fn schedulable(&self) -> Option<Value> {
        J::SCHEDULABLE.map(|schema| schema())
    }

    fn prepare(&self, tenant: TenantId, args: &Value) -> Result<(Policy, Prepared), EnqueueError> {
        let job = J::deserialize(args)
            .map_err(|source| EnqueueError::Payload { kind: J::KIND.to_owned(), source })?;
        let args = to_raw_value(args)
            .map_err(|source| EnqueueError::Payload { kind: J::KIND.to_owned(), source })?;
        let prepared = Prepared::new(J::KIND, tenant, args, job.slots(), job.unique())?;
        Ok((Policy::of::<J>(), prepared))
    }

    fn run(&self, args: Box<RawValue>, attempt: Attempt) -> BoxFuture<'static, Result<Done, Failure>> {
        let ctx = self.ctx.clone();
        async move {
            // A payload of a version that this kind says it reads, and can't: no attempt will.
            let job: J = serde_json::from_str(args.get())
                .map_err(|error| Failure::Permanent(format!("the payload can't be read: {error}")))?;
            job.run(&ctx, &attempt).await
        }
        .boxed()
    }
}
