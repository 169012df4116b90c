//! What a handler says should happen next. The queue knows how.

use std::{fmt, time::Duration};

use serde::Serialize;
use serde_json::Value;
use streamspace_common::{Classified, ErrorKind};
use tracing::warn;

/// The work is done.
#[derive(Debug, Default)]
pub struct Done {
    pub(crate) result: Option<Value>,
    pub(crate) warning: Option<String>,
}

impl Done {
    /// Done, with nothing to tell.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Done, with a result for whoever polls the job: at most 64 KiB, never a secret. A larger one
    /// is replaced by null and a warning; the outcome stands.
    pub fn with(result: impl Serialize) -> Self {
        let (result, warning) = bounded(&result);
        Self { result, warning }
    }
}

const MAX_RESULT: usize = 64 * 1024;

/// The result as it is stored, and the warning that takes its place when it can't be.
pub(crate) fn bounded(result: &impl Serialize) -> (Option<Value>, Option<String>) {
    match serde_json::to_vec(result) {
        Ok(json) if json.windows(6).any(|part| part == b"\\u0000") => {
            (None, Some("the result was dropped: PostgreSQL can't store a NUL".into()))
        }
        Ok(json) if json.len() > MAX_RESULT => (
            None,
            Some(format!("the result of {} bytes was dropped: at most {MAX_RESULT} are kept", json.len())),
        ),
        Ok(json) => match serde_json::from_slice(&json) {
            Ok(Value::Null) => (None, None),
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(format!("the result could not be kept: {error}"))),
        },
        Err(error) => (None, Some(format!("the result could not be kept: {error}"))),
    }
}

/// The work is not done; this is what to do about it.
#[derive(Debug)]
pub enum Failure {
    /// Try again, after the kind's backoff or the time that the other side asked for.
    Retry { error: String, after: Option<Duration> },
    /// Trying again can't help.
    Permanent(String),
    /// Not now: run again after this long. Burns no attempt.
    Snooze(Duration),
    /// Run again when the event happens, or after the timeout. Burns no attempt, holds no slot.
    Park { event: String, timeout: Duration },
    /// Our own database does not answer, which is not the job's fault: again soon, at first without
    /// burning an attempt.
    Outage,
    /// Stopped because it was cancelled.
    Cancelled,
    /// This attempt lost the job: another one may be running. Nothing it says counts.
    Stale,
}

impl Failure {
    pub fn retry(error: impl fmt::Display) -> Self {
        Self::Retry { error: error.to_string(), after: None }
    }

    pub fn permanent(error: impl fmt::Display) -> Self {
        Self::Permanent(error.to_string())
    }
}

/// The retry policy of every classified error, in one place.
///
/// The message becomes part of the job, which people of a tenant read: what is our fault, and what
/// the database says, is for the log.
impl<E: Classified + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = chain(&error);
        let of_database = is_of_database(&error);
        if error.kind() == ErrorKind::Internal || of_database {
            warn!("{message}");
            message = "internal error".into();
        }
        if error.kind() == ErrorKind::Unavailable && of_database {
            return Self::Outage;
        }
        match error.kind() {
            ErrorKind::RateLimited { retry_after } => {
                Self::Retry { error: message, after: Some(retry_after) }
            }
            kind if kind.is_transient() => Self::Retry { error: message, after: None },
            _ => Self::Permanent(message),
        }
    }
}

fn is_of_database(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<sqlx::Error>())
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
