//! How many requests an hour a key may make: counted in this process alone, from the first request of
//! an hour on. Of several processes each lets the whole number through.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use streamspace_common::ApiKeyId;

use crate::problem::ApiError;

const HOUR: Duration = Duration::from_secs(3600);

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

#[derive(Debug, Default)]
pub struct HourlyLimits(Mutex<HashMap<ApiKeyId, Window>>);

#[derive(Debug)]
struct Window {
    since: Instant,
    used: u32,
}

/// Where a key stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub limit: u32,
    pub remaining: u32,
    pub resets_in: Duration,
    pub allowed: bool,
}

impl HourlyLimits {
    pub fn take(&self, key: ApiKeyId, limit: u32) -> Standing {
        self.take_at(key, limit, Instant::now())
    }

    /// Forgets hours that are over; to be called now and then.
    pub fn forget(&self) {
        self.forget_at(Instant::now());
    }

    fn forget_at(&self, now: Instant) {
        let mut windows = self.0.lock().expect("no panic while it was held");
        windows.retain(|_, window| !window.is_over(now));
    }

    fn take_at(&self, key: ApiKeyId, limit: u32, now: Instant) -> Standing {
        let mut windows = self.0.lock().expect("no panic while it was held");
        let window = windows.entry(key).or_insert(Window { since: now, used: 0 });
        if window.is_over(now) {
            *window = Window { since: now, used: 0 };
        }
        let allowed = window.used < limit;
        if allowed {
            window.used += 1;
        }
        Standing {
            limit,
            remaining: limit.saturating_sub(window.used),
            resets_in: HOUR.saturating_sub(now.duration_since(window.since)),
            allowed,
        }
    }
}

impl Window {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= HOUR
    }
}

impl Standing {
    pub fn write(self, headers: &mut HeaderMap) {
        let Self { limit, remaining, .. } = self;
        let resets = self.resets_in.as_secs();
        let ascii = |text: String| HeaderValue::from_str(&text).expect("digits and ASCII");
        headers.insert(POLICY, ascii(format!(r#""hour";q={limit};w={}"#, HOUR.as_secs())));
        headers.insert(LIMIT, ascii(format!(r#""hour";r={remaining};t={resets}"#)));
    }

    pub fn refusal(self) -> ApiError {
        let detail = format!("this key may make {} requests an hour, and has", self.limit);
        ApiError::too_many("rate-limited", "Too many requests", detail, self.resets_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_hour() {
        let (limits, key, start) = (HourlyLimits::default(), ApiKeyId::new(), Instant::now());
        assert_eq!(limits.take_at(key, 2, start).remaining, 1);
        assert!(limits.take_at(key, 2, start).allowed);
        let refused = limits.take_at(key, 2, start + Duration::from_secs(600));
        assert!(!refused.allowed);
        assert_eq!(refused.resets_in, Duration::from_secs(3000));
        assert!(limits.take_at(ApiKeyId::new(), 2, start).allowed);
        assert!(limits.take_at(key, 2, start + HOUR).allowed);
    }

    #[test]
    fn an_hour_that_is_over_is_forgotten_and_no_other() {
        let (limits, start) = (HourlyLimits::default(), Instant::now());
        let (old, new) = (ApiKeyId::new(), ApiKeyId::new());
        limits.take_at(old, 2, start);
        limits.take_at(new, 2, start + HOUR / 2);
        limits.forget_at(start + HOUR);
        assert_eq!(limits.0.lock().expect("no panic").keys().collect::<Vec<_>>(), [&new]);
        assert_eq!(limits.take_at(new, 2, start + HOUR).remaining, 0);
    }

    #[test]
    fn a_limit_that_was_raised_counts_at_once() {
        let (limits, key, now) = (HourlyLimits::default(), ApiKeyId::new(), Instant::now());
        assert!(limits.take_at(key, 1, now).allowed);
        assert!(!limits.take_at(key, 1, now).allowed);
        assert!(limits.take_at(key, 2, now).allowed);
    }
}
