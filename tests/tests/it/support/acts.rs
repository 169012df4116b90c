//! What people and other programs do to jobs and queues.

use std::time::Duration;

use anyhow::Result;
use streamspace_common::{Actor, JobId, PLATFORM, TenantId};
use streamspace_queue::control;
use streamspace_queue::inspect::Scope;
use streamspace_queue::queues::{self, ChangeQueue, Rate};
use streamspace_queue::{self as queue, Job, Options, Queue, Release, Request};
use streamspace_testkit::eventually;

use super::{Instant, Lab, SOON, ms};

/// One job, from a task that outlives its lab's borrow.
pub async fn enqueue_as<J: Job>(queue: &Queue, tenant: TenantId, job: J) -> Result<JobId> {
    let mut tx = queue.begin(Actor::system(tenant), Request::default());
    let enqueued = queue::enqueue(&mut tx, job).await?;
    tx.commit().await?;
    Ok(enqueued.id)
}

impl Lab {
    pub async fn enqueue_in<J: Job>(&self, delay: Duration, job: J) -> Result<JobId> {
        self.enqueue_with(job, Options { delay: Some(delay), ..Options::default() }).await
    }

    pub async fn enqueue_at_priority<J: Job>(&self, priority: i16, job: J) -> Result<JobId> {
        self.enqueue_with(job, Options { priority, ..Options::default() }).await
    }

    /// As a program of another release does it.
    pub async fn enqueue_by_release<J: Job>(
        &self,
        release: i64,
        jobs: impl IntoIterator<Item = J>,
    ) -> Result<Vec<JobId>> {
        let other = self.client(Release(release))?;
        let mut tx = other.begin(Actor::system(self.tenant), Request::default());
        let ids = queue::enqueue_many(&mut tx, jobs, &Options::default()).await?;
        tx.commit().await?;
        other.close().await;
        Ok(ids)
    }

    /// The same job many times over, as plain rows: much faster than to enqueue them, and it is only
    /// their number that matters.
    pub async fn multiply<J: Job>(&self, job: &J, times: u32) -> Result<()> {
        sqlx::query(
            "insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms, max_attempts,
                               state, kind, queue, lane, creator_type, args)
             select gen_random_uuid(), $1, t, t, t, 1, 120000, 5, 'queued', $2, $3, $3, 'system', $4
             from (select queue.now() + n * interval '1 us' as t from generate_series(1, $5) n) s",
        )
        .bind(self.tenant)
        .bind(J::KIND)
        .bind(J::QUEUE)
        .bind(serde_json::to_value(job)?)
        .bind(i32::try_from(times)?)
        .execute(&self.pool)
        .await?;
        self.execute("vacuum analyze jobs").await
    }

    /// Tells that an event happened that jobs may be parked for.
    pub async fn happened(&self, event: &str) -> Result<()> {
        let mut tx = self.queue.begin(Actor::system(self.tenant), Request::default());
        tx.happened(event);
        Ok(tx.commit().await?)
    }

    pub async fn cancel(&self, job: JobId) -> Result<()> {
        let mut tx = self.queue.begin(Actor::system(self.tenant), Request::default());
        control::cancel(&mut tx, Scope::Tenant(self.tenant), job).await?;
        Ok(tx.commit().await?)
    }

    pub async fn sees_start_of(&self, job: JobId) {
        eventually(SOON, format_args!("job {job} starts"), async || {
            self.effects(job).await.iter().any(|name| name == "start").then_some(())
        })
        .await;
    }

    /// Waits until the database answers again.
    pub async fn comes_back(&self) {
        eventually(SOON, "the database answers", async || {
            sqlx::query("select 1").execute(&self.pool).await.is_ok().then_some(())
        })
        .await;
    }

    /// The process that started a job last which has not ended.
    pub async fn newest_runner(&self) -> Option<i32> {
        let pid = self
            .number(
                "select s.pid from effects s join jobs j on j.id = s.job_id
                 where s.name = 'start' and j.state = 'running' order by s.seq desc limit 1",
            )
            .await;
        i32::try_from(pid).ok().filter(|pid| *pid != 0)
    }

    /// For everyone, as a platform administrator does it.
    pub async fn pause(&self, queue: &str) -> Result<()> {
        self.pause_for(PLATFORM, queue).await
    }

    pub async fn resume(&self, queue: &str) -> Result<()> {
        self.resume_for(PLATFORM, queue).await
    }

    /// For one tenant's jobs.
    pub async fn pause_for(&self, tenant: TenantId, queue: &str) -> Result<()> {
        self.control(tenant, queue, ChangeQueue { paused: Some(true), ..ChangeQueue::default() }).await
    }

    pub async fn resume_for(&self, tenant: TenantId, queue: &str) -> Result<()> {
        self.control(tenant, queue, ChangeQueue { paused: Some(false), ..ChangeQueue::default() }).await
    }

    pub async fn limit_running(&self, queue: &str, most: i32) -> Result<()> {
        self.control(PLATFORM, queue, ChangeQueue { max_running: Some(Some(most)), ..ChangeQueue::default() })
            .await
    }

    pub async fn limit_rate(&self, queue: &str, per_second: i32) -> Result<()> {
        let rate = Rate { count: per_second, per: Duration::from_secs(1) };
        self.control(PLATFORM, queue, ChangeQueue { rate: Some(Some(rate)), ..ChangeQueue::default() }).await
    }

    async fn control(&self, owner: TenantId, queue: &str, change: ChangeQueue) -> Result<()> {
        let mut tx = self.queue.begin(Actor::system(owner), Request::default());
        queues::set(&mut tx, owner, queue, &change).await?;
        Ok(tx.commit().await?)
    }

    /// Waits until every worker obeys what was controlled so far: a second, which is what is promised.
    pub async fn sees_controls(&self) {
        let since = Instant::now();
        eventually(SOON, "a second is over", async || (since.elapsed() >= ms(1_000)).then_some(())).await;
    }

    /// The database's time, in seconds.
    pub async fn now(&self) -> Result<f64> {
        Ok(sqlx::query_scalar("select extract(epoch from clock_timestamp())::float8")
            .fetch_one(&self.pool)
            .await?)
    }
}
