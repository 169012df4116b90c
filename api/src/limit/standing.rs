//! What a caller is told of a limit.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Kind;
use crate::problem::ApiError;

pub(crate) const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(crate) const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Where somebody stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub(super) kind: Kind,
    pub(super) limit: u32,
    pub(super) remaining: u32,
    pub(super) resets_in: Duration,
    pub(super) allowed: bool,
}

impl Standing {
    pub fn is_allowed(&self) -> bool {
        self.allowed
    }

    pub fn write(self, headers: &mut HeaderMap) {
        let Self { kind, limit, remaining, resets_in, .. } = self;
        let (name, period) = (kind.period_name(), kind.period().as_secs());
        // Rounded up, as Retry-After is.
        let resets = resets_in.as_millis().div_ceil(1000);
        let ascii = |text: String| HeaderValue::from_str(&text).expect("digits and ASCII");
        headers.insert(POLICY, ascii(format!(r#""{name}";q={limit};w={period}"#)));
        headers.insert(LIMIT, ascii(format!(r#""{name}";r={remaining};t={resets}"#)));
    }

    pub fn refusal(self) -> ApiError {
        metrics::counter!("streamspace_rate_limited_total", "by" => self.kind.as_str()).increment(1);
        let limit = self.limit;
        let detail = match self.kind {
            Kind::Key => format!("this key may make {limit} requests an hour, and has"),
            Kind::User => format!("you may make {limit} requests a minute, and have"),
            Kind::Refused => {
                format!("an address may come {limit} times a minute with credentials that are none, and has")
            }
            Kind::Address => {
                format!(
                    "who is not signed in may make {limit} requests a minute from one address, and they were made"
                )
            }
        };
        ApiError::too_many("rate-limited", "Too many requests", detail, self.resets_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_as_long_as_told_is_not_too_early() {
        let standing = Standing {
            kind: Kind::Address,
            limit: 60,
            remaining: 0,
            resets_in: Duration::from_millis(29_001),
            allowed: false,
        };
        let mut headers = HeaderMap::new();
        standing.write(&mut headers);
        assert_eq!(headers[POLICY], r#""minute";q=60;w=60"#);
        assert_eq!(headers[LIMIT], r#""minute";r=0;t=30"#);
    }
}
