//! Jobs that act for a person, whose rights are looked up before they begin.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use streamspace_common::{Actor, TenantId, UserId};
use streamspace_queue::{
    Attempt, Behind, Done, Failure, Job, MayAct, Options, Registry, Request, Rights, control, inspect::Scope,
};
use streamspace_testkit::{eventually, holds_for};
use tokio::sync::Semaphore;

use crate::bed::{Bed, SOON, effect};

#[derive(Serialize, Deserialize)]
struct Personal;

impl Job for Personal {
    const KIND: &'static str = "test.personal";
    const QUEUE: &'static str = "test";
    const FOR_A_PERSON: bool = true;
    type Ctx = ();

    async fn run(self, (): &(), attempt: &Attempt) -> Result<Done, Failure> {
        effect(attempt, "start").await?;
        Ok(Done::nothing())
    }
}

/// Everybody may still act, but each look-up waits for a permit.
struct Slow(Semaphore);

impl Rights for Slow {
    fn actor<'a>(
        &'a self,
        _: &'a mut PgConnection,
        tenant: TenantId,
        _: Behind,
    ) -> BoxFuture<'a, sqlx::Result<MayAct>> {
        async move {
            self.0.acquire().await.expect("never closed").forget();
            Ok(MayAct::As(Actor::system(tenant)))
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_stopped_while_rights_are_looked_up_does_not_begin() {
    let bed = Bed::new().await;
    let rights = Arc::new(Slow(Semaphore::new(0)));
    let registry = Registry::new().register::<Personal>(Arc::new(()));
    let worker = bed.worker_that_asks(rights.clone(), registry);
    let options = Options { user: Some(UserId::new()), ..Options::default() };
    let job = bed.enqueue_with(Personal, options.clone()).await.id;
    bed.becomes(job, "running").await;
    let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
    control::cancel(&mut tx, Scope::Tenant(bed.tenant), job).await.expect("cancelled");
    tx.commit().await.expect("committed");
    eventually(SOON, "it is told to stop", async || {
        (!bed.job(job).await["cancel_delivered_at"].is_null()).then_some(())
    })
    .await;
    rights.0.add_permits(2);
    bed.becomes(job, "cancelled").await;
    assert!(bed.effects(job).await.is_empty());
    let another = bed.enqueue_with(Personal, options).await.id;
    bed.becomes(another, "succeeded").await;
    assert_eq!(bed.effects(another).await, ["start"]);
    worker.stop().await;
}

/// The tenant is suspended while the first look-up is under way, without a word to anybody.
#[derive(Default)]
struct Suspended(AtomicBool);

impl Rights for Suspended {
    fn actor<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        tenant: TenantId,
        _: Behind,
    ) -> BoxFuture<'a, sqlx::Result<MayAct>> {
        async move {
            if !self.0.swap(true, Ordering::SeqCst) {
                sqlx::query("update tenants set active = false where id = $1")
                    .bind(tenant.0)
                    .execute(&mut *conn)
                    .await?;
            }
            // As long as it is: the job may be claimed once more before this worker knows.
            let active: bool = sqlx::query_scalar("select active from tenants where id = $1")
                .bind(tenant.0)
                .fetch_one(conn)
                .await?;
            Ok(if active { MayAct::As(Actor::system(tenant)) } else { MayAct::NotNow })
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_tenant_is_suspended_as_it_starts_waits_with_the_others() {
    let bed = Bed::new().await;
    bed.set_active(bed.tenant, true).await;
    let rights = Arc::new(Suspended::default());
    let worker = bed.worker_that_asks(rights.clone(), Registry::new().register::<Personal>(Arc::new(())));
    let options = Options { user: Some(UserId::new()), ..Options::default() };
    let job = bed.enqueue_with(Personal, options).await.id;
    eventually(SOON, "rights were asked", async || rights.0.load(Ordering::SeqCst).then_some(())).await;
    bed.becomes(job, "queued").await;
    holds_for(Duration::from_millis(1_500), "it waits", async || {
        let row = bed.job(job).await;
        row["state"] == "queued" && row["attempt"] == 0 && row["errors"].is_null()
    })
    .await;
    bed.set_active(bed.tenant, true).await;
    assert_eq!(bed.becomes(job, "succeeded").await["attempt"], 1);
    assert_eq!(bed.effects(job).await, ["start"]);
    worker.stop().await;
}
