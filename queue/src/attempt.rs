//! One attempt at a job: what its handler holds.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use streamspace_common::{Actor, JobId, TenantId};
use tokio_util::sync::CancellationToken;

use crate::{
    handle::Queue,
    outcome::{Done, Failure, bounded},
    settle,
    tx::{Request, Tx},
};

/// How far a job is. Whatever is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Progress {
    /// `current` of `total`, with the percentage that follows.
    pub fn of(current: u64, total: u64, unit: impl Into<String>) -> Self {
        let percent = (total > 0).then(|| (current as f64 / total as f64 * 100.0) as f32);
        Self { percent, current: Some(current), total: Some(total), unit: Some(unit.into()), message: None }
    }

    pub fn message(self, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..self }
    }
}

pub struct Attempt {
    /// Fires when the job is cancelled, times out, is handed back, or was lost. Stop what runs
    /// outside this process, then return.
    pub cancel: CancellationToken,
    pub(crate) hold: Arc<Hold>,
    pub(crate) queue: Queue,
    pub(crate) actor: Actor,
    pub(crate) request: Request,
}

/// What ties an attempt to its job's row, shared with the engine.
pub(crate) struct Hold {
    pub id: JobId,
    pub tenant: TenantId,
    /// The row is this attempt's exactly while its fence is this.
    pub fence: i64,
    pub number: i32,
    pub max_attempts: i32,
    pub checkpoint: Mutex<Option<Value>>,
    /// What the engine writes twice a second, when it changed.
    pub progress: Mutex<Option<Progress>>,
    pub has_progress: AtomicBool,
    /// `commit` has completed the job.
    pub committed: AtomicBool,
    pub timed_out_waiting: bool,
}

impl Attempt {
    pub fn id(&self) -> JobId {
        self.hold.id
    }

    pub fn tenant(&self) -> TenantId {
        self.hold.tenant
    }

    /// 1 is the first.
    pub fn number(&self) -> i32 {
        self.hold.number
    }

    pub fn is_last(&self) -> bool {
        self.hold.number >= self.hold.max_attempts
    }

    /// Part of the name of every object that the attempt writes: a stale one can't overwrite.
    pub fn fence(&self) -> i64 {
        self.hold.fence
    }

    /// The key of an effect outside the database, the same in every attempt.
    pub fn key(&self, step: &str) -> String {
        format!("{}-{step}", self.hold.id)
    }

    /// Whether the job was parked and its timeout woke it, not the event.
    pub fn timed_out_waiting(&self) -> bool {
        self.hold.timed_out_waiting
    }

    /// Whoever the job acts for.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// For reading, and for effects that need no fence. What must happen once goes through
    /// [`Attempt::commit`] or [`Attempt::step`].
    pub fn begin(&self) -> Tx {
        self.queue.begin(self.actor.clone(), self.request.clone())
    }

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Says how far the work is. Cheap: the engine writes it at most twice a second.
    pub fn progress(&self, mut progress: Progress) {
        for text in [&mut progress.unit, &mut progress.message].into_iter().flatten() {
            // PostgreSQL has no place for it.
            text.retain(|c| c != '\0');
        }
        *self.hold.progress.lock().expect("no panic while it was held") = Some(progress);
        self.hold.has_progress.store(true, Ordering::Release);
    }

    /// What an earlier attempt left with [`Attempt::set_checkpoint`].
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Option<T> {
        let stored = self.hold.checkpoint.lock().expect("no panic while it was held").clone();
        stored.and_then(|value| serde_json::from_value(value).ok())
    }

    /// Leaves a value that the next attempt can read; it is durable when this returns.
    pub async fn set_checkpoint(&self, value: impl Serialize) -> Result<(), Failure> {
        let value = serde_json::to_value(value).map_err(Failure::permanent)?;
        let mut tx = self.begin();
        if !settle::set_checkpoint(tx.conn().await?, self.hold.id, self.hold.fence, &value).await? {
            return Err(self.stale());
        }
        tx.commit().await?;
        *self.hold.checkpoint.lock().expect("no panic while it was held") = Some(value);
        Ok(())
    }

    /// Runs the effect, the fence check and the job's completion in one transaction: all or
    /// nothing, once. What the effect returns is the job's result.
    pub async fn commit<T, E, F>(&self, effect: F) -> Result<Done, Failure>
    where
        T: Serialize,
        E: Into<Failure>,
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
    {
        let mut tx = self.begin();
        let value = effect(&mut tx).await.map_err(Into::into)?;
        let (result, warning) = bounded(&value);
        let finished = settle::Finish {
            job: self.hold.id,
            fence: self.hold.fence,
            start_us: 0,
            result,
            warning: warning.clone(),
            progress: self.unwritten_progress(),
        };
        let settled = settle::finish(tx.conn().await?, &[finished]).await?;
        if settled.jobs == 0 {
            return Err(self.stale());
        }
        tx.notices().merge(settled.notices);
        // If the answer to the commit is lost, the engine acknowledges a retry with this fence:
        // it changes nothing when the commit went through, and runs the job again when not.
        tx.commit().await?;
        self.hold.committed.store(true, Ordering::Release);
        Ok(Done { result: None, warning })
    }

    /// One of several effects of a job, under a name: a later attempt finds it done and gets what
    /// it returned. The effect, its mark and the fence check are one transaction.
    pub async fn step<T, E, F>(&self, name: &str, effect: F) -> Result<T, Failure>
    where
        T: Serialize + DeserializeOwned,
        E: Into<Failure>,
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
    {
        let mut tx = self.begin();
        if let Some(value) = settle::find_step(tx.conn().await?, self.hold.id, name).await? {
            return serde_json::from_value(value).map_err(Failure::permanent);
        }
        let value = effect(&mut tx).await.map_err(Into::into)?;
        let stored = serde_json::to_value(&value).map_err(Failure::permanent)?;
        if !settle::mark_step(tx.conn().await?, self.hold.id, self.hold.fence, name, &stored).await? {
            return Err(self.stale());
        }
        tx.commit().await?;
        Ok(value)
    }

    pub(crate) fn unwritten_progress(&self) -> Option<Value> {
        self.hold.take_progress()
    }

    pub(crate) fn stale(&self) -> Failure {
        metrics::counter!("streamspace_stale_total").increment(1);
        Failure::Stale
    }
}

impl Hold {
    /// Progress that was not written yet.
    pub(crate) fn take_progress(&self) -> Option<Value> {
        if !self.has_progress.swap(false, Ordering::AcqRel) {
            return None;
        }
        let progress = self.progress.lock().expect("no panic while it was held").clone();
        progress.and_then(|progress| serde_json::to_value(progress).ok())
    }
}
