//! Errors are named where they arise and classified once; HTTP status and retry policy follow.

use std::time::Duration;

/// What an error means to whoever called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Absent, or not visible to the caller: the two are never told apart.
    NotFound,
    /// Visible, but not permitted.
    Forbidden,
    Unauthenticated,
    /// The request itself is wrong; repeating it changes nothing.
    Invalid,
    /// Something else stands in the way now.
    Conflict,
    /// It was there and is no more.
    Gone,
    RateLimited {
        retry_after: Duration,
    },
    /// Something outside failed; it may work later.
    Unavailable,
    /// Our fault: logged in full, answered as "internal error".
    Internal,
}

impl ErrorKind {
    /// Whether doing the same again later can help.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Conflict | Self::RateLimited { .. } | Self::Unavailable | Self::Internal)
    }
}

pub trait Classified: std::error::Error {
    fn kind(&self) -> ErrorKind;

    /// The one field of the request that is wrong, as a JSON pointer, and what is wrong with it.
    fn field(&self) -> Option<(&str, &str)> {
        None
    }
}

/// What a server says that is starting, stopping, full or a standby, or a pooler that has lost its
/// server: SQLSTATE classes 08, 53 and 58, and some of others.
fn is_outage(code: &str) -> bool {
    matches!(&code[..code.len().min(2)], "08" | "53" | "58")
        || matches!(code, "25006" | "57P01" | "57P02" | "57P03")
}

impl Classified for sqlx::Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::PoolTimedOut | Self::Io(_) | Self::Tls(_) | Self::PoolClosed => ErrorKind::Unavailable,
            Self::Database(error) if error.code().is_some_and(|code| is_outage(&code)) => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Internal,
        }
    }
}
