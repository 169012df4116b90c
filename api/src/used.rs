//! Which sign-ins are used, on its way into the database: a request only notes it in memory, and once a
//! minute those of the minute are written together.

use std::{collections::HashSet, sync::Mutex, time::Duration};

use streamspace_common::SignInId;
use streamspace_domain::sign_in::SignIns;
use tokio::time::timeout;
use tracing::warn;

/// More people than one process serves in a minute. Who is not noted now is noted in the next.
const MOST: usize = 100_000;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Used(Mutex<HashSet<SignInId>>);

impl Used {
    pub fn note(&self, sign_in: SignInId) {
        let mut used = self.0.lock().expect("no panic while it was held");
        if used.len() < MOST {
            used.insert(sign_in);
        }
    }

    /// Those that are not written now are in a minute, if they are still used.
    pub async fn write(&self, sign_ins: &SignIns) {
        let used = std::mem::take(&mut *self.0.lock().expect("no panic while it was held"));
        let used: Vec<_> = used.into_iter().collect();
        for some in used.chunks(1000) {
            let why = match timeout(PATIENCE, sign_ins.touch(some)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("the database did not answer within {PATIENCE:?}"),
            };
            return warn!(error = %why, "which sign-ins are used is not written");
        }
    }
}
