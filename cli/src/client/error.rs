//! Why a request got no answer that can be used, and what to do about it.

use std::{error::Error as StdError, fmt::Display, io, time::Duration};

use reqwest::StatusCode;
use url::Url;

use super::{problem::Problem, server::KeyOrigin};
use crate::failure::{self, Advice};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered, and the answer is no.
    #[error("{problem}")]
    Refused {
        problem: Box<Problem>,
        is_ours: bool,
        retry_after: Option<Duration>,
        /// Of the key that it was asked with; `None`: somebody's sign-in, or nobody's.
        key: Option<KeyOrigin>,
    },
    #[error("{url} cannot be reached: {reason}")]
    Unreachable { url: Url, reason: String, is_about_tls: bool },
    #[error("{url} did not answer in time")]
    Silent { url: Url },
    #[error("the connection to {url} broke: {reason}")]
    Broken { url: Url, reason: String },
    #[error("{url} redirects to {target}")]
    Moved { url: Url, target: String },
    #[error("the answer of {url} cannot be read: {reason}")]
    Unreadable { url: Url, reason: String },
    #[error("your sign-in at {url} is over")]
    SignedOut { url: Url },
    /// What is to be read or written down with a request.
    #[error("{0:#}")]
    Unkept(anyhow::Error),
}

impl Error {
    pub fn of_transport(error: reqwest::Error, url: &Url) -> Self {
        let url = url.clone();
        let causes: Vec<_> = causes(&error).collect();
        // The layers in between say no more than that something below them failed.
        let reason = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
        if error.is_connect() {
            Self::Unreachable { url, reason, is_about_tls: causes.into_iter().any(is_about_tls) }
        } else if error.is_timeout() {
            Self::Silent { url }
        } else {
            Self::Broken { url, reason }
        }
    }

    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { problem, .. } => StatusCode::from_u16(problem.status).ok(),
            _ => None,
        }
    }

    /// Our server does not know who asks.
    pub fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::Refused { problem, is_ours: true, .. } if problem.status == 401)
    }

    /// Our server says no, and this is why.
    pub fn problem(&self, name: &str) -> Option<&Problem> {
        match self {
            Self::Refused { problem, is_ours: true, .. } if problem.is(name) => Some(problem),
            _ => None,
        }
    }

    /// Our server knows the key, and says that it may not do this.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { problem, is_ours: true, .. } if problem.status == 403)
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { problem, retry_after, .. } => match problem.status {
                429 | 502..=504 => true,
                // Our own request, whose answer was lost, is still being worked on.
                409 => retry_after.is_some(),
                _ => false,
            },
            Self::Unreachable { is_about_tls, .. } => !is_about_tls,
            Self::Silent { .. } | Self::Broken { .. } => true,
            Self::Moved { .. } | Self::Unreadable { .. } | Self::SignedOut { .. } | Self::Unkept(_) => false,
        }
    }

    /// The request cannot have had an effect.
    pub fn never_arrived(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// For one of several things that were asked for: a refusal of one is no reason to stop.
    pub fn told_of(&self, thing: impl Display) -> String {
        let message = format!("{thing}: {self}");
        failure::render(&match self.hint() {
            Some(hint) => Advice::new(message, hint).into(),
            None => anyhow::Error::msg(message),
        })
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { is_ours: false, problem, .. } => Some(match problem.status {
                502..=504 => "a proxy answered, the server behind it does not".to_owned(),
                _ => "no StreamSpace server answered there: check the URL".to_owned(),
            }),
            Self::Refused { problem, key, retry_after, .. } => match problem.status {
                401 => key.as_ref().map(|key| match key {
                    KeyOrigin::Input => "it may be mistyped, expired or revoked".to_owned(),
                    key => format!(
                        "the key from {key} is not accepted: it may be mistyped, expired or revoked; log in with another: streamspace login"
                    ),
                }),
                403 if problem.is("mfa-required") => None,
                403 => Some(match (key, problem.missing_scope()) {
                    (Some(key), Some(scope)) => format!(
                        "the key from {key} has not the scope {scope}: use another, made with it (`streamspace admin api-keys create --scope {scope}`)"
                    ),
                    (Some(key), None) => {
                        format!("the key from {key} may not do this: ask someone with a higher role")
                    }
                    (None, _) => "your role does not reach this: ask someone with a higher one".to_owned(),
                }),
                404 => Some("it may be gone, belong to another tenant, or the server may be older than this command".to_owned()),
                429 => retry_after
                    .map(|after| format!("try again in {}", super::text::span(after))),
                500 => Some("the request id leads whoever operates the server to the cause in its log".to_owned()),
                _ => None,
            },
            Self::Unreachable { url, is_about_tls: true, .. } => Some(match url.scheme() {
                "https" => "the server's certificate is not trusted here, or it does not speak TLS; name your own authority's certificates with SSL_CERT_FILE".to_owned(),
                _ => "check the URL".to_owned(),
            }),
            Self::Unreachable { url, .. } => Some(match url.host_str() {
                Some("localhost" | "127.0.0.1" | "[::1]") => {
                    "is the server running? `streamspace up` starts one on this machine".to_owned()
                }
                _ => "is the URL right, and does the server run?".to_owned(),
            }),
            Self::Moved { target, .. } => Some(format!("if you trust it, use that address: --url {target}")),
            Self::SignedOut { url } => Some(format!("sign in again: streamspace login --url {url}")),
            Self::Unkept(error) => error.downcast_ref::<Advice>().map(|advice| advice.hint().to_owned()),
            Self::Silent { .. } | Self::Broken { .. } | Self::Unreadable { .. } => None,
        }
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// An `io::Error` is not the source of what it wraps, so sources alone do not lead there.
fn is_about_tls(cause: &(dyn StdError + 'static)) -> bool {
    match cause.downcast_ref::<io::Error>().map(|error| (error.get_ref(), error.kind())) {
        Some((Some(inner), _)) if inner.is::<io::Error>() || inner.is::<rustls::Error>() => {
            is_about_tls(inner)
        }
        // The other side hung up on the greeting.
        Some((Some(inner), io::ErrorKind::UnexpectedEof)) => inner.to_string().starts_with("tls"),
        _ => cause.is::<rustls::Error>(),
    }
}
