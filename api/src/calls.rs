//! What keys are used for, on its way into the database. A request only puts a line into memory; a task
//! writes many at a time. What does not fit is counted and forgotten.

use std::{net::IpAddr, sync::Mutex, time::Duration};

use axum::response::Response;
use http::Method;
use jiff::Timestamp;
use streamspace_domain::api_keys::{Call, usage};
use streamspace_queue::Queue;
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;

use crate::{
    operations,
    request::{self, Asked},
};

/// A few MB, and several seconds of a process that does nothing else.
const MOST: usize = 50_000;
/// A database that does not answer holds up one batch, and nobody's request.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_ADDRESS: usize = 64;

#[derive(Debug, Default)]
pub struct Calls(Mutex<Vec<Call>>);

impl Calls {
    pub(crate) fn record(
        &self,
        method: &Method,
        route: Option<&str>,
        response: &Response,
        took: Duration,
        address: Option<IpAddr>,
    ) {
        let Some(&Asked { tenant, key: Some(key), .. }) = response.extensions().get::<Asked>() else {
            return;
        };
        let operation = route.and_then(|route| operations::find(method, route));
        let call = Call {
            id: Uuid::now_v7(),
            at: Timestamp::now(),
            tenant,
            key,
            method: request::method_label(method),
            // A stranger's text is not repeated.
            route: operation.map_or("unmatched", |operation| operation.path),
            status: response.status().as_u16(),
            address: address.map(|address| address.to_string()).filter(|text| text.len() <= LONGEST_ADDRESS),
            duration_us: i64::try_from(took.as_micros()).unwrap_or(i64::MAX),
        };
        let mut calls = self.0.lock().expect("no panic while it was held");
        if calls.len() < MOST {
            calls.push(call);
        } else {
            drop(calls);
            dropped(1);
        }
    }

    /// Writes what there is; to be called every few seconds.
    pub(crate) async fn write(&self, queue: &Queue) {
        let calls = std::mem::take(&mut *self.0.lock().expect("no panic while it was held"));
        for (n, batch) in calls.chunks(usage::BATCH).enumerate() {
            let why = match timeout(PATIENCE, usage::write(queue, batch)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("the database did not answer within {PATIENCE:?}"),
            };
            warn!(error = %why, "what keys were used for is not written yet");
            return self.keep(&calls[n * usage::BATCH..]);
        }
    }

    /// For the next time, as far as there is room: what is newer was here first.
    fn keep(&self, unwritten: &[Call]) {
        let mut calls = self.0.lock().expect("no panic while it was held");
        let room = MOST.saturating_sub(calls.len()).min(unwritten.len());
        calls.extend_from_slice(&unwritten[unwritten.len() - room..]);
        drop(calls);
        dropped(unwritten.len() - room);
    }
}

fn dropped(count: usize) {
    if count > 0 {
        metrics::counter!("streamspace_api_key_calls_dropped_total").increment(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http::StatusCode;
    use streamspace_common::{ApiKeyId, TenantId};

    use super::*;

    #[test]
    fn what_does_not_fit_is_forgotten() {
        let calls = Calls::default();
        let asked = Asked { tenant: TenantId::new(), user: None, key: Some(ApiKeyId::new()) };
        let mut response = StatusCode::OK.into_response();
        calls.record(&Method::GET, None, &response, Duration::ZERO, None);
        assert!(calls.0.lock().expect("no panic").is_empty(), "nobody's call");
        response.extensions_mut().insert(asked);
        for _ in 0..MOST + 10 {
            calls.record(&Method::GET, Some("/api/v1/jobs"), &response, Duration::ZERO, None);
        }
        let unwritten = std::mem::take(&mut *calls.0.lock().expect("no panic"));
        assert_eq!((unwritten.len(), unwritten[0].route), (MOST, "/api/v1/jobs"));
        calls.record(&Method::GET, Some("<script>"), &response, Duration::ZERO, None);
        calls.keep(&unwritten);
        let kept = calls.0.lock().expect("no panic");
        assert_eq!((kept.len(), kept[0].route), (MOST, "unmatched"));
    }
}
