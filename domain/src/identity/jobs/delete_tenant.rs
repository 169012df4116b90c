use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use streamspace_common::TenantId;
use streamspace_queue::{self as queue, Attempt, Done, Failure, Job, Progress, Slot, Tx, hours, seconds};
use tokio::time::Instant;

use crate::{api_keys, idempotency, identity::tenants, pace::rest, settings, sign_in, teams, tickets};

/// Deletes a tenant whose time has come, in small steps. A step deletes what it finds, so after a crash
/// the walk begins anew and passes quickly over what is gone; and an attempt that has lost the job does
/// nothing that its successor would not.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteTenant {
    pub tenant: TenantId,
}

/// Rows of a table in one step.
const MOST: i64 = 500;
/// How long running jobs are given to stop before they are looked for again.
const STOPPING: Duration = seconds(2);

type Erase = for<'a> fn(&'a mut PgConnection, TenantId) -> BoxFuture<'a, sqlx::Result<u64>>;

/// Slice by slice: what refers to others' rows before those. Each answers how many rows a step has
/// deleted; none: it is done.
const SLICES: [Erase; 8] = [
    |conn, tenant| queue::tenants::erase(conn, tenant, MOST).boxed(),
    |conn, tenant| idempotency::erase(conn, tenant, MOST).boxed(),
    |conn, tenant| tickets::erase(conn, tenant, MOST).boxed(),
    |conn, tenant| sign_in::erase(conn, tenant, MOST).boxed(),
    |conn, tenant| teams::erase(conn, tenant, MOST).boxed(),
    |conn, tenant| api_keys::erase(conn, tenant, MOST).boxed(),
    |conn, tenant| settings::erase(conn, tenant).boxed(),
    |conn, tenant| tenants::erase_people(conn, tenant, MOST).boxed(),
];

impl Job for DeleteTenant {
    const KIND: &'static str = "identity.delete_tenant";
    const QUEUE: &'static str = "maintenance";
    const TIMEOUT: Duration = hours(12);
    const ATTEMPTS: i32 = 20;
    type Ctx = ();

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::everywhere(format!("delete_tenant/{}", self.tenant), 1)]
    }

    async fn run(self, (): &(), attempt: &Attempt) -> Result<Done, Failure> {
        let tenant = self.tenant;
        let mut tx = attempt.begin();
        let begins = tenants::begin_deletion(&mut tx, tenant).await?;
        let running = if begins { queue::tenants::stop(&mut tx, tenant).await? } else { 0 };
        tx.commit().await?;
        if !begins {
            return Ok(Done::nothing());
        }
        if running > 0 {
            return Err(Failure::Snooze(STOPPING));
        }
        let mut rows = attempt.checkpoint::<u64>().unwrap_or(0);
        for erase in SLICES {
            loop {
                let began = Instant::now();
                let mut tx = attempt.begin();
                let gone = erase(tx.conn().await?, tenant).await?;
                tx.commit().await?;
                if gone == 0 {
                    break;
                }
                rows += gone;
                attempt.progress(Progress {
                    current: Some(rows),
                    unit: Some("rows".into()),
                    ..Progress::default()
                });
                rest(attempt, began).await?;
            }
            attempt.set_checkpoint(rows).await?;
        }
        attempt
            .commit(async |tx: &mut Tx| {
                if queue::tenants::has_jobs(tx.conn().await?, tenant).await? {
                    // A worker that could not read that the tenant is suspended.
                    return Err(Failure::Snooze(STOPPING));
                }
                tenants::erase(tx, tenant, rows).await?;
                Ok(json!({ "rows": rows }))
            })
            .await
    }
}
