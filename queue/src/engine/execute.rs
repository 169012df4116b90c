//! Runs one attempt: starts the handler, watches it, and says how it ended.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use serde_json::json;
use sqlx::PgConnection;
use streamspace_common::{Actor, Creator, Role};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, warn};

use super::{
    Behind, Engine, Live, MayAct, Stop,
    acknowledge::Ack,
    judge::{Ending, Judged, Policy, ending, judge, millis},
};
use crate::{
    attempt::{Attempt, Hold},
    claim::Claimed,
    db::ANSWER,
    keys,
    notice::Notices,
    outcome::{Done, Failure},
    registry::Kind,
    settle::{End, Finish, Verdict},
    tx::Request,
};

/// A dropped handler ends at its next await; one that has none in this time is abandoned.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);
/// An error message is for people.
const MAX_MESSAGE: usize = 4096;

impl Engine {
    pub(super) async fn execute(self: Arc<Self>, claimed: Claimed) {
        let live = self.attempts.lock().expect("no panic while it was held").get(&claimed.id).cloned();
        // Another attempt's, when this one was lost while it waited for its slot.
        let live = live.filter(|live| live.hold.fence == claimed.fence && live.stopped() != Some(Stop::Lost));
        let Some(live) = live else {
            self.ended(&claimed, Duration::ZERO);
            return self.forget(&claimed);
        };
        let kind = match self.registry.get(&claimed.kind) {
            Some(kind) if claimed.version <= kind.policy().version => kind.clone(),
            _ => return self.unknown(claimed, &live).await,
        };
        let start_us = i64::try_from(live.claimed.elapsed().as_micros()).unwrap_or(i64::MAX);
        metrics::histogram!("streamspace_wait_seconds", "queue" => claimed.queue.clone())
            .record(claimed.waited_ms.max(0) as f64 / 1000.0);
        let run = Run { claimed, live, start_us, started: std::time::Instant::now() };
        if run.claimed.cancelling {
            run.live.stop(Stop::Cancelled);
        }
        if run.live.stopped().is_some() {
            // Before it began.
            return self.conclude(run, kind.as_ref(), Ending::Dropped);
        }
        let actor = match self.actor(kind.as_ref(), &run.claimed).await {
            Ok(MayAct::As(actor)) => actor,
            Ok(MayAct::No) => return self.without_rights(run),
            Ok(MayAct::NotNow) => return self.not_now(run),
            Err(error) => return self.conclude(run, kind.as_ref(), Ending::Returned(Err(error.into()))),
        };
        if run.live.stopped().is_some() {
            // While its rights were looked up.
            return self.conclude(run, kind.as_ref(), Ending::Dropped);
        }
        let span = tracing::info_span!(
            "job", job.id = %run.claimed.id, job.kind = %run.claimed.kind, job.attempt = run.claimed.attempt,
            tenant = %run.claimed.tenant, request.id = run.claimed.request_id.as_deref(),
        );
        span.in_scope(|| tracing::debug!("starts"));
        let cancel = CancellationToken::new();
        let attempt = Attempt {
            cancel: cancel.clone(),
            hold: run.live.hold.clone(),
            queue: self.queue.clone(),
            actor,
            request: Request {
                id: run.claimed.request_id.clone(),
                traceparent: run.claimed.traceparent.clone(),
                address: None,
            },
        };
        // Moved, not copied: the payload is the handler's from here.
        let mut run = run;
        let args = std::mem::take(&mut run.claimed.args);
        let body = kind.run(args, attempt).instrument(span.clone());
        let task = self.handlers.spawn(body);
        let timeout = Duration::from_millis(u64::try_from(run.claimed.timeout_ms).unwrap_or(0));
        let ending = watch(task, &run.live, &cancel, timeout, kind.grace()).await;
        span.in_scope(|| self.conclude(run, kind.as_ref(), ending));
    }

    /// Who the job acts as, if whoever it acts for may act.
    async fn actor(&self, kind: &dyn Kind, claimed: &Claimed) -> sqlx::Result<MayAct> {
        let behind = claimed.user.map(Behind::Person).or(claimed.key.map(Behind::Key));
        let (by, user, key) = (Creator::Job(claimed.id), claimed.user, claimed.key);
        if let (true, Some(behind)) = (kind.for_a_person(), behind) {
            let look_up =
                async |conn: &mut PgConnection| self.rights.actor(conn, claimed.tenant, behind).await;
            let may_act = self.queue.db().read_within(ANSWER, look_up).await?;
            return Ok(match may_act {
                MayAct::As(actor) => MayAct::As(Actor { by, user, key, ..actor }),
                not => not,
            });
        }
        let (tenant, platform) = (claimed.tenant, claimed.tenant == streamspace_common::PLATFORM);
        Ok(MayAct::As(Actor { tenant, by, user, key, role: Role::Owner, platform }))
    }

    fn without_rights(&self, run: Run) {
        info!(job.id = %run.claimed.id, "cancelled: whoever it acts for may no longer act");
        let error = Some(run.error("rights", "whoever this job acts for may no longer act in this tenant"));
        let end = run.end(Verdict::Cancelled, error);
        self.ended(&run.claimed, run.started.elapsed());
        self.settle(Ack::End(end));
    }

    /// Its tenant was suspended a moment ago: it goes back as it came, and what it waits for is read at once.
    fn not_now(&self, run: Run) {
        self.pulse.notify_one();
        self.ended(&run.claimed, run.started.elapsed());
        self.release(vec![run.claimed]);
    }

    /// Records the end of an attempt.
    fn conclude(self: &Arc<Self>, run: Run, kind: &dyn Kind, ending: Ending) {
        let took = run.started.elapsed();
        metrics::histogram!("streamspace_duration_seconds", "kind" => run.claimed.kind.clone())
            .record(took.as_secs_f64());
        if run.live.hold.committed.load(Ordering::Acquire) {
            // Completed together with its effect; there is nothing left to write.
            info!("succeeded in {took:?}");
            self.finished(&run, "succeeded");
            self.forget(&run.claimed);
            return self.leave(run, took, ending);
        }
        let stopped = run.live.stopped();
        if stopped == Some(Stop::Lost) {
            warn!("the job was taken over by another worker; this attempt ends without effect");
            if !matches!(ending, Ending::Returned(Err(Failure::Stale)) | Ending::Dropped) {
                metrics::counter!("streamspace_stale_total").increment(1);
            }
            self.forget(&run.claimed);
            return self.leave(run, took, ending);
        }
        let mut abandoned = None;
        let ack = match judge(&run.policy(kind), ending, stopped) {
            Judged::Finish(done) => {
                info!("succeeded in {took:?}");
                Ack::Finish(Finish {
                    job: run.claimed.id,
                    fence: run.claimed.fence,
                    start_us: run.start_us,
                    result: done.result,
                    warning: done.warning,
                    progress: run.live.hold.take_progress(),
                })
            }
            Judged::End { verdict, error, task } => {
                match &error {
                    Some((_, message)) => warn!(?verdict, "ended after {took:?}: {message}"),
                    // A kind that watches something does so every few seconds.
                    None if matches!(verdict, Verdict::Snooze { .. }) => {
                        debug!(?verdict, "ended after {took:?}")
                    }
                    None => info!(?verdict, "ended after {took:?}"),
                }
                let error = error.map(|(kind, message)| run.error(kind, &message));
                let mut end = run.end(verdict, error);
                if task.is_some() {
                    end.keep_slots = true;
                    end.warning =
                        Some("its handler ignores cancellation and was abandoned; it may still run".into());
                }
                abandoned = task;
                Ack::End(end)
            }
            Judged::Park { event, timeout } => {
                info!("parked for {event:?}, at most {timeout:?}");
                Ack::Park {
                    job: run.claimed.id,
                    fence: run.claimed.fence,
                    tenant: run.claimed.tenant,
                    event,
                    timeout_ms: millis(timeout),
                    snapshot: run.claimed.snapshot.clone().unwrap_or_default(),
                    keyed: run.claimed.keyed,
                }
            }
            Judged::Nothing => {
                self.finished(&run, "stale");
                self.ended(&run.claimed, took);
                self.forget(&run.claimed);
                return;
            }
        };
        match abandoned {
            Some(task) => self.abandon(run, task),
            None => self.ended(&run.claimed, took),
        }
        self.settle(ack);
    }

    fn finished(&self, run: &Run, outcome: &'static str) {
        metrics::counter!("streamspace_jobs_total", "kind" => run.claimed.kind.clone(), "outcome" => outcome)
            .increment(1);
    }

    /// Its slot is free, unless the handler would not end.
    fn leave(self: &Arc<Self>, run: Run, took: Duration, ending: Ending) {
        match ending {
            Ending::Abandoned(task) => self.abandon(run, task),
            _ => self.ended(&run.claimed, took),
        }
    }

    /// The attempt has nothing to write.
    fn forget(&self, claimed: &Claimed) {
        self.remove_attempt(claimed.id, claimed.fence);
        if self.controls().limits_queue(&claimed.queue) {
            self.queue.tell(Notices { freed: [claimed.queue.clone()].into(), ..Notices::default() });
        }
    }

    /// Waits for a task that should have ended, and frees what it holds when it does.
    fn abandon(self: &Arc<Self>, run: Run, task: JoinHandle<Result<Done, Failure>>) {
        let abandoned = self.abandoned.fetch_add(1, Ordering::AcqRel) + 1;
        if abandoned >= super::MOST_ABANDONED {
            warn!("{abandoned} handlers ignore cancellation: draining, so that the process can be replaced");
            self.worn_out.store(true, Ordering::Release);
            self.draining.cancel();
        }
        let engine = self.clone();
        tokio::spawn(async move {
            let _ = task.await;
            let job = &run.claimed;
            info!(job.id = %job.id, "an abandoned handler ended");
            if job.keyed {
                match keys::free_abandoned(engine.queue.db(), job.id, job.fence).await {
                    Ok(keys) => engine
                        .queue
                        .tell(Notices { unblock: keys.into_iter().collect(), ..Notices::default() }),
                    Err(error) => warn!(%error, "its slots are freed when this process ends"),
                }
            }
            engine.abandoned.fetch_sub(1, Ordering::AcqRel);
            engine.ended(job, run.started.elapsed());
        });
    }
}

/// One attempt, on its way to an end.
pub(super) struct Run {
    pub claimed: Claimed,
    pub live: Arc<Live>,
    pub start_us: i64,
    pub started: std::time::Instant,
}

impl Run {
    fn policy(&self, kind: &dyn Kind) -> Policy {
        Policy {
            attempt: self.claimed.attempt,
            max_attempts: self.claimed.max_attempts,
            timeout: Duration::from_millis(self.claimed.timeout_ms.unsigned_abs()),
            backoff: kind.backoff(),
        }
    }

    pub(super) fn error(&self, kind: &str, message: &str) -> serde_json::Value {
        let mut message = message.replace('\0', "\u{fffd}");
        if message.len() > MAX_MESSAGE {
            let mut end = MAX_MESSAGE;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            message.push('…');
        }
        json!({ "attempt": self.claimed.attempt, "kind": kind, "message": message })
    }

    pub(super) fn end(&self, verdict: Verdict, error: Option<serde_json::Value>) -> End {
        End {
            job: self.claimed.id,
            fence: self.claimed.fence,
            start_us: self.start_us,
            verdict,
            error,
            warning: None,
            progress: self.live.hold.take_progress(),
            keep_slots: false,
            counted: true,
        }
    }
}

/// Waits for the handler, or for a reason to stop it; then gives it its grace.
async fn watch(
    mut task: JoinHandle<Result<Done, Failure>>,
    live: &Live,
    cancel: &CancellationToken,
    timeout: Duration,
    grace: Duration,
) -> Ending {
    tokio::select! {
        biased;
        returned = &mut task => return ending(returned),
        () = live.stop.cancelled() => {}
        () = tokio::time::sleep(timeout) => live.stop(Stop::TimedOut),
    }
    cancel.cancel();
    if let Ok(returned) = tokio::time::timeout(grace, &mut task).await {
        return ending(returned);
    }
    task.abort();
    match tokio::time::timeout(DROP_TIMEOUT, &mut task).await {
        Ok(returned) => ending(returned),
        Err(_) => Ending::Abandoned(task),
    }
}

impl Hold {
    pub(super) fn new(row: &Claimed) -> Self {
        Self {
            id: row.id,
            tenant: row.tenant,
            fence: row.fence,
            number: row.attempt,
            max_attempts: row.max_attempts,
            checkpoint: Mutex::new(row.checkpoint.clone()),
            progress: Mutex::default(),
            has_progress: false.into(),
            committed: false.into(),
            timed_out_waiting: row.timed_out_waiting,
        }
    }
}
