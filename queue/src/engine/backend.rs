//! What apalis sees: a source of claimed jobs, and a service that executes one.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::context::WorkerContext,
};
use futures::future::BoxFuture;
use tower::{Service, layer::util::Identity};

use super::Engine;
use crate::claim::Claimed;

/// Takes what waits for a slot and never fails: claiming, with all that can go wrong, is `fetch`'s.
/// When the slots are closed the stream ends, and with it apalis's worker.
pub(super) struct Claims {
    engine: Arc<Engine>,
}

impl Claims {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

impl Backend for Claims {
    type Task = Task<Claimed>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Task<Claimed>, Infallible>>> {
        self.engine.next_to_start(cx).map(|claimed| {
            if claimed.is_none() {
                // The end of the stream alone does not end apalis's worker; it waits for this word.
                let _ = worker.stop();
            }
            claimed.map(|claimed| {
                let id = TaskId::from_string(claimed.id.0.simple().to_string());
                let attempt = usize::try_from(claimed.attempt.max(1) - 1).unwrap_or(0);
                Ok(TaskBuilder::new(claimed).task_id(id).attempt(attempt).build())
            })
        })
    }

    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        self.engine.start_no_more();
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for Claims {
    type Args = Claimed;
    type Id = String;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}

/// Executes one job. What becomes of it is the engine's to record; apalis learns only that it ended.
#[derive(Clone)]
pub(super) struct Execute {
    engine: Arc<Engine>,
}

impl Execute {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

impl Service<Task<Claimed>> for Execute {
    type Response = ();
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<Claimed>) -> Self::Future {
        let engine = self.engine.clone();
        let (claimed, _) = task.take();
        Box::pin(async move {
            engine.execute(claimed).await;
            Ok(())
        })
    }
}
