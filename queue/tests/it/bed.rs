//! A test bed: a private database, workers, and job kinds that do what a test asks.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{PgConnection, Row};
use streamspace_common::{Actor, JobId, TenantId};
use streamspace_queue::{
    Attempt, Backoff, Behind, Db, DbOptions, Done, Ended, Enqueued, Failure, Job, Listen, MayAct, Options,
    Queue, QueueOptions, Registry, Release, Request, Rights, Slot, Unique, WorkerOptions, enqueue_with,
    run_worker, seconds, tenants,
};
use streamspace_testkit::{Database, Postgres, eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const SOON: Duration = Duration::from_secs(10);

/// The most jobs of [`What::Wait`] that ever ran at the same time, from their effects.
pub const OVERLAP: &str = "select coalesce(max(n), 0)::bigint from (
    select sum(case what when 'start' then 1 else -1 end) over (order by at) as n from effects) x";

pub struct Bed {
    database: Database,
    pub queue: Queue,
    pub tenant: TenantId,
}

pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<Ended>,
}

impl Running {
    pub async fn stop(self) -> Ended {
        self.stop.cancel();
        self.task.await.expect("the worker does not panic")
    }
}

impl Bed {
    pub async fn new() -> Self {
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        let postgres = Postgres::shared().await;
        let database =
            postgres.template(&migrations).await.expect("a template").database().await.expect("a database");
        let queue = connect(database.url(), Release(1));
        let bed = Self { database, queue, tenant: TenantId::new() };
        bed.execute("create table effects (job uuid not null, what text not null, at timestamptz default clock_timestamp())")
            .await;
        bed
    }

    /// Another process's view: what it is told crosses NOTIFY.
    pub fn another_queue(&self, release: Release) -> Queue {
        connect(self.database.url(), release)
    }

    pub fn worker(&self) -> Running {
        self.worker_with(WorkerOptions { concurrency: 10, ..quick() })
    }

    pub fn worker_with(&self, options: WorkerOptions) -> Running {
        self.worker_of(self.queue.clone(), registry(), options)
    }

    pub fn worker_of(&self, queue: Queue, registry: Registry, options: WorkerOptions) -> Running {
        start(queue, registry, Arc::new(Everybody), options)
    }

    pub fn worker_that_asks(&self, rights: Arc<dyn Rights>, registry: Registry) -> Running {
        start(self.queue.clone(), registry, rights, quick())
    }

    pub async fn enqueue(&self, job: impl Job) -> JobId {
        self.enqueue_with(job, Options::default()).await.id
    }

    pub async fn enqueue_with(&self, job: impl Job, options: Options) -> Enqueued {
        self.enqueue_as(self.tenant, job, options).await
    }

    pub async fn enqueue_as(&self, tenant: TenantId, job: impl Job, options: Options) -> Enqueued {
        let mut tx = self.queue.begin(Actor::system(tenant), Request::default());
        let enqueued = enqueue_with(&mut tx, job, options).await.expect("enqueued");
        tx.commit().await.expect("committed");
        enqueued
    }

    /// Suspends a tenant, or lets it go on.
    pub async fn set_active(&self, tenant: TenantId, active: bool) {
        let mut tx = self.queue.begin(Actor::system(tenant), Request::default());
        let set = "insert into tenants (id, name, slug, active) values ($1, 'T', $2, $3)
                   on conflict (id) do update set active = excluded.active";
        sqlx::query(set)
            .bind(tenant.0)
            .bind(format!("t-{}", tenant.0.simple()))
            .bind(active)
            .execute(tx.conn().await.expect("a connection"))
            .await
            .expect(set);
        tenants::changed(&mut tx).await.expect("told");
        tx.commit().await.expect("committed");
    }

    /// It runs, and its handler has begun.
    pub async fn has_begun(&self, id: JobId) {
        eventually(SOON, "it has begun", async || (!self.effects(id).await.is_empty()).then_some(())).await;
    }

    pub async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(self.queue.db().pool()).await.expect(sql);
    }

    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.queue.db().pool()).await.expect(sql)
    }

    pub async fn job(&self, id: JobId) -> Value {
        sqlx::query("select to_jsonb(j) from jobs j where id = $1")
            .bind(id.0)
            .fetch_one(self.queue.db().pool())
            .await
            .expect("the job")
            .get(0)
    }

    pub async fn state(&self, id: JobId) -> String {
        self.job(id).await["state"].as_str().expect("a state").to_owned()
    }

    pub async fn becomes(&self, id: JobId, state: &str) -> Value {
        eventually(SOON, format!("{id} is {state}"), async || {
            let job = self.job(id).await;
            (job["state"] == json!(state)).then_some(job)
        })
        .await
    }

    /// Whoever takes a slot at the first claim of a job takes this long.
    pub async fn slow_slots(&self) {
        self.execute(
            "create function take_long() returns trigger language plpgsql as $$ begin
               if new.fence = 1 then perform pg_sleep(4); end if;
               return new;
             end $$;
             create trigger slow before insert on job_slots for each row execute function take_long()",
        )
        .await;
    }

    /// Waits until a statement like this waits for somebody's lock, or sleeps.
    pub async fn sees_waiting(&self, like: &str) {
        eventually(SOON, format!("{like} waits"), async || {
            let waiting: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity
                 where datname = current_database() and (wait_event_type = 'Lock' or wait_event = 'PgSleep')
                   and query like $1",
            )
            .bind(like)
            .fetch_one(self.queue.db().pool())
            .await
            .expect("read");
            (waiting > 0).then_some(())
        })
        .await;
    }

    /// Whoever wants the first slot of the key `k` waits until this is over.
    pub async fn slot_being_taken(&self) -> sqlx::Transaction<'static, sqlx::Postgres> {
        let mut open = self.queue.db().begin().await.expect("a transaction");
        sqlx::query("insert into job_slots (key, slot_no, job_id, fence, boot_id) values ($1, 1, $2, 1, $2)")
            .bind(format!("{}/k", self.tenant.0.simple()))
            .bind(JobId::new().0)
            .execute(&mut *open)
            .await
            .expect("a slot that is being taken");
        open
    }

    pub async fn effects(&self, id: JobId) -> Vec<String> {
        sqlx::query_scalar("select what from effects where job = $1 order by at")
            .bind(id.0)
            .fetch_all(self.queue.db().pool())
            .await
            .expect("effects")
    }
}

fn start(queue: Queue, registry: Registry, rights: Arc<dyn Rights>, options: WorkerOptions) -> Running {
    let stop = CancellationToken::new();
    let handlers = tokio::runtime::Handle::current();
    let task = tokio::spawn(run_worker(queue, registry, rights, options, handlers, stop.clone()));
    Running { stop, task }
}

fn connect(url: &str, release: Release) -> Queue {
    let db = Db::new(&DbOptions {
        url: url.to_owned(),
        direct_url: None,
        max_connections: 16,
        application: "test".into(),
    })
    .expect("a database URL");
    let listen = Listen { engine: true, live: true };
    Queue::start(db, QueueOptions { release, listen, redis_url: None }).expect("a queue")
}

pub fn quick() -> WorkerOptions {
    WorkerOptions {
        lease: Duration::from_secs(3),
        heartbeat: Duration::from_secs(1),
        shutdown_timeout: Duration::from_secs(2),
        ..WorkerOptions::default()
    }
}

/// Everybody may still act.
pub struct Everybody;

impl Rights for Everybody {
    fn actor<'a>(
        &'a self,
        _: &'a mut PgConnection,
        tenant: TenantId,
        _: Behind,
    ) -> BoxFuture<'a, sqlx::Result<MayAct>> {
        async move { Ok(MayAct::As(Actor::system(tenant))) }.boxed()
    }
}

/// Does what its payload says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Act {
    pub what: What,
    #[serde(default)]
    pub slots: Vec<(String, i16)>,
    #[serde(default)]
    pub unique: Option<String>,
    #[serde(default)]
    pub unique_while_waiting: bool,
    /// It has its key for so long at most.
    #[serde(default)]
    pub unique_for_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum What {
    #[default]
    Nothing,
    Return(Value),
    Big,
    Nul,
    /// Fails until this attempt.
    RetryUntil(i32),
    /// Our own database does not answer, the first so many times.
    Outages(usize),
    Permanent,
    Panic,
    SnoozeOnce,
    Park {
        timeout_ms: u64,
    },
    /// Works for this long before it looks and parks.
    ParkAfter(u64),
    /// Parks for a moment; when nothing has come, waits to be stopped, once.
    WaitAfterTimeout,
    /// Waits until it is told to stop, or this long.
    Wait(u64),
    /// Parks for an event of this name.
    ParkFor(String),
    /// Blocks its thread: neither cancelled nor dropped.
    Block(u64),
    /// Never looks at its token, but has awaits.
    IgnoreCancel(u64),
    Commit,
    CommitThenFail,
    Steps,
    Progress,
    Checkpoint,
}

pub fn act(what: What) -> Act {
    Act { what, ..Act::default() }
}

pub static RUNNING: AtomicUsize = AtomicUsize::new(0);

impl Job for Act {
    const KIND: &'static str = "test.act";
    const QUEUE: &'static str = "test";
    const ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = seconds(2);
    const GRACE: Duration = Duration::from_millis(200);
    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(50), cap: seconds(1) };
    type Ctx = ();

    fn slots(&self) -> Vec<Slot> {
        self.slots.iter().map(|(key, limit)| Slot::per_tenant(key, *limit)).collect()
    }

    fn unique(&self) -> Option<Unique> {
        let key = self.unique.clone()?;
        let unique =
            if self.unique_while_waiting { Unique::while_waiting(key) } else { Unique::until_finished(key) };
        Some(self.unique_for_ms.into_iter().map(Duration::from_millis).fold(unique, Unique::at_most))
    }

    async fn run(self, (): &(), attempt: &Attempt) -> Result<Done, Failure> {
        match self.what {
            What::Nothing => Ok(Done::nothing()),
            What::Return(value) => Ok(Done::with(value)),
            What::Big => Ok(Done::with("x".repeat(2 << 20))),
            What::Nul => Ok(Done::with("a\0b")),
            What::Outages(times) => {
                effect(attempt, "start").await?;
                let mut tx = attempt.begin();
                let runs: i64 = sqlx::query_scalar("select count(*) from effects where job = $1")
                    .bind(attempt.id().0)
                    .fetch_one(tx.conn().await?)
                    .await?;
                if usize::try_from(runs).unwrap_or(0) > times {
                    return Ok(Done::nothing());
                }
                Err(sqlx::Error::PoolTimedOut.into())
            }
            What::RetryUntil(n) if attempt.number() < n => Err(Failure::retry("not yet")),
            What::RetryUntil(_) => Ok(Done::with(attempt.number())),
            What::Permanent => Err(Failure::permanent("never")),
            What::Panic => panic!("on purpose"),
            What::SnoozeOnce => {
                if attempt.checkpoint::<bool>().is_some() {
                    return Ok(Done::with(attempt.number()));
                }
                attempt.set_checkpoint(true).await?;
                Err(Failure::Snooze(Duration::from_millis(100)))
            }
            What::Park { timeout_ms } => {
                if attempt.timed_out_waiting() {
                    return Ok(Done::with("timeout"));
                }
                wait_for_event(attempt, "it".into(), timeout_ms).await
            }
            What::ParkFor(event) => wait_for_event(attempt, event, 60_000).await,
            What::Block(ms) => {
                std::thread::sleep(Duration::from_millis(ms));
                Ok(Done::nothing())
            }
            What::ParkAfter(ms) => {
                effect(attempt, "start").await?;
                tokio::time::sleep(Duration::from_millis(ms)).await;
                wait_for_event(attempt, "it".into(), 60_000).await
            }
            What::WaitAfterTimeout => {
                let before = attempt.checkpoint::<bool>().is_some();
                match (attempt.timed_out_waiting(), before) {
                    (true, true) => Ok(Done::with("timeout")),
                    (false, true) => Ok(Done::with("forgotten")),
                    (false, false) => {
                        Err(Failure::Park { event: "it".into(), timeout: Duration::from_millis(50) })
                    }
                    (true, false) => {
                        attempt.set_checkpoint(true).await?;
                        effect(attempt, "waits").await?;
                        attempt.cancel.cancelled().await;
                        Err(Failure::Cancelled)
                    }
                }
            }
            What::Wait(ms) => {
                RUNNING.fetch_add(1, Ordering::SeqCst);
                effect(attempt, "start").await?;
                let stopped = tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(ms)) => false,
                    () = attempt.cancel.cancelled() => true,
                };
                effect(attempt, if stopped { "stopped" } else { "end" }).await?;
                if stopped { Err(Failure::Cancelled) } else { Ok(Done::nothing()) }
            }
            What::IgnoreCancel(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                effect(attempt, "ignored").await?;
                Ok(Done::nothing())
            }
            What::Commit => {
                attempt.commit(async |tx| insert(tx.conn().await?, attempt.id(), "commit").await).await
            }
            What::CommitThenFail => {
                attempt.commit(async |tx| insert(tx.conn().await?, attempt.id(), "commit").await).await?;
                Err(Failure::retry("after the commit"))
            }
            What::Steps => {
                for step in ["a", "b", "c"] {
                    attempt.step(step, async |tx| insert(tx.conn().await?, attempt.id(), step).await).await?;
                    if step == "b" && attempt.number() == 1 {
                        return Err(Failure::retry("between the steps"));
                    }
                }
                Ok(Done::nothing())
            }
            What::Progress => {
                attempt.progress(streamspace_queue::Progress::of(3, 4, "items").message("nearly"));
                tokio::time::sleep(Duration::from_millis(700)).await;
                attempt.progress(streamspace_queue::Progress::of(4, 4, "items"));
                Ok(Done::nothing())
            }
            What::Checkpoint => match attempt.checkpoint::<u32>() {
                Some(n) => Ok(Done::with(n)),
                None => {
                    attempt.set_checkpoint(42).await?;
                    Err(Failure::retry("once more"))
                }
            },
        }
    }
}

async fn wait_for_event(attempt: &Attempt, event: String, timeout_ms: u64) -> Result<Done, Failure> {
    let mut tx = attempt.begin();
    let happened: i64 = sqlx::query_scalar("select count(*) from effects where what = 'event'")
        .fetch_one(tx.conn().await?)
        .await?;
    tx.rollback().await?;
    if happened > 0 {
        return Ok(Done::with("event"));
    }
    Err(Failure::Park { event, timeout: Duration::from_millis(timeout_ms) })
}

pub async fn effect(attempt: &Attempt, what: &str) -> Result<(), Failure> {
    let mut tx = attempt.begin();
    insert(tx.conn().await?, attempt.id(), what).await?;
    tx.commit().await?;
    Ok(())
}

async fn insert(conn: &mut PgConnection, job: JobId, what: &str) -> sqlx::Result<()> {
    sqlx::query("insert into effects (job, what) values ($1, $2)")
        .bind(job.0)
        .bind(what)
        .execute(conn)
        .await?;
    Ok(())
}

pub fn registry() -> Registry {
    Registry::new().register::<Act>(Arc::new(()))
}
