//! Each way back into the queue starts a job at once, also behind the position that claims remember.
//!
//! A trigger of the test records when a row became claimable; claims have passed its place long ago,
//! since other jobs of the lane come and go all the while.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Result;
use streamspace_common::JobId;

use crate::support::*;

const TRIGGER: &str = "
    create table claimable (job_id uuid not null, was text not null, at timestamptz not null default clock_timestamp());
    create function claimable() returns trigger language plpgsql as $$ begin
        insert into claimable (job_id, was) values (new.id, old.state::text); return null; end $$;
    create trigger claimable after update on jobs for each row
        when (new.state = 'queued' and old.state <> 'queued') execute function claimable();";

const BOUND: Duration = ms(50);

/// A lane in which claims move on while the test runs.
struct Stream {
    lab: Lab,
    /// While it stands, nothing comes.
    stands: Arc<AtomicBool>,
    _worker: Process,
    ticking: tokio::task::JoinHandle<()>,
}

impl Stream {
    async fn start() -> Result<Self> {
        Self::beside(laboratory().await?).await
    }

    /// Beside whoever works in the laboratory already.
    async fn beside(lab: Lab) -> Result<Self> {
        let worker = lab.worker().concurrency(100).start().await;
        let (queue, tenant) = (lab.queue.clone(), lab.tenant);
        let stands = Arc::new(AtomicBool::new(false));
        let ticking = tokio::spawn({
            let stands = stands.clone();
            async move {
                loop {
                    if !stands.load(Ordering::Acquire) {
                        let _ = enqueue_as(&queue, tenant, Play(Script::idle())).await;
                    }
                    tokio::time::sleep(ms(10)).await;
                }
            }
        });
        Ok(Self { lab, stands, _worker: worker, ticking })
    }

    /// From when each job became claimable (again) from `state` to its next start. Of two that are let
    /// go for one slot of a key one is blocked again, and waits for the slot: its last way back counts.
    async fn measure(&self, from: &str, jobs: &[JobId]) -> Percentiles {
        let lab = &self.lab;
        for job in jobs {
            lab.reaches(*job, "succeeded", LATER).await;
        }
        let sql = format!(
            "select extract(epoch from s.at - max(c.at))::float8 * 1000 from claimable c
             join (select distinct job_id from effects where name = 'start') noted using (job_id)
             cross join lateral (select min(at) as at from effects
                                 where job_id = c.job_id and name = 'start' and at > c.at) s
             where c.was = '{from}' group by c.job_id, s.at"
        );
        let waits = Percentiles::of(lab.durations(&sql).await);
        report!("from {from} to its start: {waits}");
        waits
    }
}

async fn laboratory() -> Result<Lab> {
    let lab = Lab::quiet().await?;
    sqlx::raw_sql(TRIGGER).execute(&lab.pool).await?;
    Ok(lab)
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ticking.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_time_has_come() -> Result<()> {
    in_one_of_three_rounds(BOUND, async || {
        let stream = Stream::start().await?;
        let mut jobs = vec![];
        for i in 0..60 {
            jobs.push(stream.lab.enqueue_in(ms(500 + i * 37), play([])).await?);
        }
        let waits = stream.measure("scheduled", &jobs).await;
        Ok(vec![waits, late_by(&stream.lab, "scheduled").await])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_retry_is_due() -> Result<()> {
    in_one_of_three_rounds(BOUND, async || {
        let stream = Stream::start().await?;
        let jobs = stream.lab.enqueue_many((0..60).map(|_| play([Retry.first()]))).await?;
        let waits = stream.measure("retrying", &jobs).await;
        Ok(vec![waits, late_by(&stream.lab, "retrying").await])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_worker_is_dead() -> Result<()> {
    in_one_of_three_rounds(BOUND, async || {
        let lab = laboratory().await?;
        let victim = lab.worker().concurrency(70).named("victim").start().await;
        let jobs = lab.enqueue_many((0..20).map(|_| play([Sleep(20_000).first()]))).await?;
        lab.sees("start", 20, SOON).await;
        let stream = Stream::beside(lab).await?;
        victim.kill9().await;
        let waits = stream.measure("running", &jobs).await;
        Ok(vec![waits])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_worker_hands_it_back() -> Result<()> {
    in_one_of_three_rounds(BOUND, async || {
        let lab = laboratory().await?;
        let leaving = lab.worker().concurrency(70).patience(ms(100)).named("leaving").start().await;
        let jobs = lab.enqueue_many((0..20).map(|_| play([Sleep(20_000).first()]))).await?;
        lab.sees("start", 20, SOON).await;
        let stream = Stream::beside(lab).await?;
        leaving.term();
        leaving.exited(SOON).await;
        let waits = stream.measure("running", &jobs).await;
        Ok(vec![waits])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_queue_is_resumed() -> Result<()> {
    in_one_of_three_rounds(BOUND, async || {
        let stream = Stream::start().await?;
        let lab = &stream.lab;
        let mut waits = vec![];
        for _ in 0..10 {
            // Or else a hundred others would wait before those that are measured.
            stream.stands.store(true, Ordering::Release);
            lab.pause("lab").await?;
            lab.sees_controls().await;
            let jobs = lab.enqueue_many((0..4).map(|_| play([]))).await?;
            holds_for(ms(150), "they wait", async || lab.job(jobs[0]).await.state == "queued").await;
            let resumed = lab.now().await?;
            lab.resume("lab").await?;
            stream.stands.store(false, Ordering::Release);
            for job in jobs {
                lab.reaches(job, "succeeded", SOON).await;
                let sql = format!(
                    "select (extract(epoch from at)::float8 - {resumed}) * 1000 from effects
                 where job_id = '{job}' and name = 'start'"
                );
                waits.extend(lab.durations(&sql).await);
            }
        }
        let waits = Percentiles::of(waits);
        report!("from resume to start: {waits}");
        Ok(vec![waits])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_key_is_free() -> Result<()> {
    in_one_of_three_rounds(BOUND, async || {
        let stream = Stream::start().await?;
        let mut jobs = vec![];
        for i in 0..60 {
            let key = format!("key {}", i % 6);
            jobs.push(stream.lab.enqueue(Play(Script::of([Sleep(50)]).with_slot(&key, 1))).await?);
        }
        let waits = stream.measure("blocked", &jobs).await;
        Ok(vec![waits])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_event_happens() -> Result<()> {
    in_one_of_three_rounds(BOUND, async || {
        let stream = Stream::start().await?;
        let lab = &stream.lab;
        let mut jobs = vec![];
        for i in 0..40 {
            jobs.push(lab.enqueue(play([Park(format!("event {i}"), 60_000).first()])).await?);
        }
        for (i, job) in jobs.iter().enumerate() {
            lab.reaches(*job, "parked", SOON).await;
            lab.happened(&format!("event {i}")).await?;
        }
        let waits = stream.measure("parked", &jobs).await;
        Ok(vec![waits])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_was_snoozed() -> Result<()> {
    in_one_of_three_rounds(BOUND, async || {
        let stream = Stream::start().await?;
        let jobs = stream.lab.enqueue_many((0..60).map(|i| play([Snooze(200 + i * 11).first()]))).await?;
        let waits = stream.measure("snoozed", &jobs).await;
        Ok(vec![waits])
    })
    .await
}

/// Becoming claimable in time is half of it: the other half is that it happens when it is due.
async fn late_by(lab: &Lab, from: &str) -> Percentiles {
    let sql = format!(
        "select extract(epoch from c.at - j.run_at)::float8 * 1000 from claimable c join jobs j on j.id = c.job_id
         where c.was = '{from}'"
    );
    let late = Percentiles::of(lab.durations(&sql).await);
    report!("from due to claimable, {from}: {late}");
    late
}
