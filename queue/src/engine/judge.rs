//! What becomes of a job, given how its handler ended. Pure: every rule can be read, and tested, here.

use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};

use super::Stop;
use crate::{
    job::Backoff,
    outcome::{Done, Failure},
    settle::Verdict,
};

/// The kind of error of an outage of our own database, which `queue.outages` counts.
const OUTAGE: &str = "outage";
const DATABASE: &str = "the database was not available";

/// How a handler's task came to an end.
pub(super) enum Ending {
    Returned(Result<Done, Failure>),
    Panicked(String),
    /// It was dropped at an await, as asked.
    Dropped,
    /// It still runs.
    Abandoned(JoinHandle<Result<Done, Failure>>),
}

pub(super) fn ending(returned: Result<Result<Done, Failure>, JoinError>) -> Ending {
    match returned {
        Ok(result) => Ending::Returned(result),
        Err(error) if error.is_panic() => {
            let panic = error.into_panic();
            let said = panic
                .downcast_ref::<&str>()
                .map(|said| (*said).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            Ending::Panicked(said.unwrap_or_else(|| "without a message".into()))
        }
        Err(_) => Ending::Dropped,
    }
}

/// What the rules ask of a job and its kind.
pub(super) struct Policy {
    pub attempt: i32,
    pub max_attempts: i32,
    pub timeout: Duration,
    pub backoff: Backoff,
}

pub(super) enum Judged {
    Finish(Done),
    End {
        verdict: Verdict,
        /// Its kind, and what it says.
        error: Option<(&'static str, String)>,
        /// The handler that would not end.
        task: Option<JoinHandle<Result<Done, Failure>>>,
    },
    Park {
        event: String,
        timeout: Duration,
    },
    /// There is nothing to say: the job is another attempt's.
    Nothing,
}

pub(super) fn judge(policy: &Policy, ending: Ending, stopped: Option<Stop>) -> Judged {
    let end = |verdict, error| Judged::End { verdict, error, task: None };
    match (ending, stopped) {
        // It was done before it could be stopped.
        (Ending::Returned(Ok(done)), _) => Judged::Finish(done),
        (Ending::Returned(Err(Failure::Stale)), _) => Judged::Nothing,
        (Ending::Abandoned(task), why) => {
            let (verdict, error) = stopped_by(policy, why.unwrap_or(Stop::Cancelled));
            Judged::End { verdict, error, task: Some(task) }
        }
        (_, Some(why)) => {
            let (verdict, error) = stopped_by(policy, why);
            end(verdict, error)
        }
        (Ending::Panicked(said), None) => {
            let (verdict, error) = retry(policy, "panic", format!("the handler panicked: {said}"), None);
            end(verdict, error)
        }
        // Nobody asked for it: its runtime is going down with the process.
        (Ending::Dropped, None) => end(Verdict::Release, None),
        (Ending::Returned(Err(failure)), None) => match failure {
            Failure::Retry { error, after } => {
                let (verdict, error) = retry(policy, "error", error, after);
                end(verdict, error)
            }
            Failure::Outage => end(
                Verdict::Outage { after_ms: millis(Backoff::OUTAGE.wait(1, rand::random())) },
                Some((OUTAGE, DATABASE.into())),
            ),
            Failure::Permanent(error) => end(Verdict::Failed, Some(("permanent", error))),
            Failure::Snooze(wait) => end(Verdict::Snooze { after_ms: millis(wait) }, None),
            Failure::Park { event, timeout } => Judged::Park { event, timeout },
            // It says so, though nobody asked it to stop.
            Failure::Cancelled => end(Verdict::Cancelled, None),
            Failure::Stale => Judged::Nothing,
        },
    }
}

type Sentence = (Verdict, Option<(&'static str, String)>);

/// What follows for a handler that was told to stop and did, or had to be dropped or left behind.
fn stopped_by(policy: &Policy, why: Stop) -> Sentence {
    match why {
        Stop::Cancelled => (Verdict::Cancelled, None),
        Stop::TimedOut => retry(policy, "timeout", format!("did not end within {:?}", policy.timeout), None),
        // Not its fault: the next attempt has the same number.
        Stop::HandedBack | Stop::Lost => (Verdict::Release, None),
    }
}

/// Once more, if there is an attempt left.
fn retry(policy: &Policy, kind: &'static str, message: String, after: Option<Duration>) -> Sentence {
    if policy.attempt >= policy.max_attempts {
        return (Verdict::Failed, Some((kind, message)));
    }
    let after = after.unwrap_or_else(|| policy.backoff.wait(policy.attempt, rand::random()));
    (Verdict::Retry { after_ms: millis(after) }, Some((kind, message)))
}

/// As PostgreSQL can add it to a time: a thousand years at most.
pub(super) fn millis(time: Duration) -> i64 {
    const MOST: i64 = 1000 * 366 * 24 * 3600 * 1000;
    i64::try_from(time.as_millis()).unwrap_or(MOST).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(attempt: i32) -> Policy {
        Policy { attempt, max_attempts: 3, timeout: Duration::from_secs(9), backoff: Backoff::DEFAULT }
    }

    fn verdict(attempt: i32, ending: Ending, stopped: Option<Stop>) -> Option<Verdict> {
        match judge(&policy(attempt), ending, stopped) {
            Judged::End { verdict, .. } => Some(verdict),
            _ => None,
        }
    }

    fn returned(failure: Failure) -> Ending {
        Ending::Returned(Err(failure))
    }

    #[test]
    fn who_is_done_is_done_whatever_was_asked_meanwhile() {
        for stopped in [None, Some(Stop::Cancelled), Some(Stop::TimedOut), Some(Stop::HandedBack)] {
            let judged = judge(&policy(1), Ending::Returned(Ok(Done::nothing())), stopped);
            assert!(matches!(judged, Judged::Finish(_)));
        }
    }

    #[test]
    fn the_last_attempt_fails_where_the_others_are_retried() {
        let says = [|| returned(Failure::retry("no")), || Ending::Panicked("oh".into())];
        for ending in says {
            assert!(matches!(verdict(2, ending(), None), Some(Verdict::Retry { .. })));
            assert_eq!(verdict(3, ending(), None), Some(Verdict::Failed));
        }
        assert_eq!(verdict(3, Ending::Dropped, Some(Stop::TimedOut)), Some(Verdict::Failed));
    }

    #[test]
    fn what_stopped_a_handler_decides_not_what_it_said_then() {
        let failed = || returned(Failure::permanent("the connection was cut"));
        assert_eq!(verdict(1, failed(), Some(Stop::Cancelled)), Some(Verdict::Cancelled));
        assert_eq!(verdict(1, failed(), Some(Stop::HandedBack)), Some(Verdict::Release));
        assert!(matches!(verdict(1, failed(), Some(Stop::TimedOut)), Some(Verdict::Retry { .. })));
        assert_eq!(verdict(1, failed(), None), Some(Verdict::Failed));
    }

    #[test]
    fn the_other_side_may_say_when_to_come_back() {
        let after = Some(Duration::from_secs(77));
        let asked = returned(Failure::Retry { error: "busy".into(), after });
        assert_eq!(verdict(1, asked, None), Some(Verdict::Retry { after_ms: 77_000 }));
    }

    #[test]
    fn a_wait_for_ever_is_a_long_time() {
        assert!(millis(Duration::MAX) > 0);
        assert_eq!(millis(Duration::from_millis(5)), 5);
    }
}
