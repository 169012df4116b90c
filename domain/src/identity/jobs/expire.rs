use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamspace_queue::{Attempt, Done, Failure, Job, Slot, minutes};
use tokio::time::Instant;

use crate::{
    api_keys::{self, usage},
    oidc,
    pace::rest,
    registration, sign_in,
};

/// Puts down API keys whose time is over, and forgets what has ended by time: sign-ins, refresh tokens and
/// challenges, browsers that were sent to an identity provider, mailed links, invitations, secrets of keys
/// whose overlap is over, the log of what keys were used for, keys that sign no more. That they end does not
/// wait for this: each is asked for its time when somebody comes with it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expire {}

/// Rows of a kind in one go.
const MOST: i64 = 5000;

impl Job for Expire {
    const KIND: &'static str = "identity.expire";
    const QUEUE: &'static str = "maintenance";
    const TIMEOUT: Duration = minutes(30);
    const ATTEMPTS: i32 = 3;
    type Ctx = ();

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::everywhere(Self::KIND, 1)]
    }

    async fn run(self, (): &(), attempt: &Attempt) -> Result<Done, Failure> {
        loop {
            let began = Instant::now();
            let mut tx = attempt.begin();
            let expired = api_keys::expire(&mut tx).await?;
            let conn = tx.conn().await?;
            let more = expired
                | usage::prune(conn).await?
                | sign_in::prune(conn, MOST).await?
                | oidc::prune(conn, MOST).await?
                | registration::prune(conn, MOST).await?;
            tx.commit().await?;
            if !more {
                break;
            }
            rest(attempt, began).await?;
        }
        let mut tx = attempt.begin();
        let conn = tx.conn().await?;
        sign_in::forget_keys(conn).await?;
        usage::drop_months(conn).await?;
        tx.commit().await?;
        Ok(Done::nothing())
    }
}
