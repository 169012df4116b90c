use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Executor, FromRow, PgPool};
use streamspace_common::{Actor, JobId, TenantId};
use streamspace_queue::{
    self as queue, Db, DbOptions, Job, Listen, Options, Queue, QueueOptions, Release, Request,
};
use streamspace_testkit::{Database, PgBouncer, Postgres, Scratch, eventually};
use streamspace_tests::stage::EFFECTS;

use super::{SOON, fleet::Role, turns::Turn};

/// A database of its own with the product's schema and the table of effects, and this process as a
/// client of the queue.
///
/// Fields drop in order: the turn last, after the database.
pub struct Lab {
    pub pool: PgPool,
    pub queue: Queue,
    pub tenant: TenantId,
    pooler: Option<PgBouncer>,
    pub database: Database,
    /// What the processes here share and the database does not hold.
    keys: Scratch,
    _turn: Turn,
}

/// A job as it is stored.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct JobRow {
    pub state: String,
    pub attempt: i32,
    pub fence: i64,
    pub row_version: i64,
    pub result: Option<Value>,
    pub warning: Option<String>,
    pub progress: Option<Value>,
    pub checkpoint: Option<Value>,
    pub errors: Option<Value>,
}

impl JobRow {
    /// The messages and kinds of its errors, in one text.
    pub fn complaints(&self) -> String {
        self.errors.as_ref().map(Value::to_string).unwrap_or_default()
    }
}

const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");

impl Lab {
    pub async fn new() -> Result<Self> {
        Self::on(Postgres::shared().await, Turn::shared().await).await
    }

    /// One that shares the machine with no other test, for those that measure.
    pub async fn quiet() -> Result<Self> {
        let turn = Turn::alone().await;
        Self::on(Postgres::shared().await, turn).await
    }

    /// Another one on the same server, for as long as this one.
    pub async fn sibling(&self) -> Result<Self> {
        Self::on(Postgres::shared().await, Turn::Anothers).await
    }

    /// On a server that the test may break.
    pub async fn on_own(postgres: &Postgres) -> Result<Self> {
        Self::on(postgres, Turn::shared().await).await
    }

    async fn on(postgres: &Postgres, turn: Turn) -> Result<Self> {
        let database = postgres.template(Path::new(MIGRATIONS)).await?.database().await?;
        let pool = PgPoolOptions::new().max_connections(8).connect(database.url()).await?;
        pool.execute(EFFECTS).await?;
        // `make test-long` runs everything once more with a pooler in between.
        let pooler = match std::env::var_os("STREAMSPACE_TEST_POOLER") {
            Some(_) => Some(PgBouncer::start(&database).await?),
            None => None,
        };
        let queue = client(&database, pooler.as_ref(), Release(1))?;
        let tenant = new_tenant(&pool).await?;
        Ok(Self { pool, queue, tenant, pooler, database, keys: Scratch::new("keys")?, _turn: turn })
    }

    /// A program of that release that uses the queue.
    pub fn client(&self, release: Release) -> Result<Queue> {
        client(&self.database, self.pooler.as_ref(), release)
    }

    // Who works here ------------------------------------------------------------------------------

    pub fn worker(&self) -> Role {
        self.role("worker")
    }

    pub fn scheduler(&self) -> Role {
        self.role("scheduler")
    }

    pub(super) fn role(&self, role: &str) -> Role {
        let direct = Role::new(role, self.database.url(), self.database.url())
            .env("FLEET_MASTER_KEYS", self.keys.path().join("master.key"));
        self.pooler.iter().fold(direct, |role, pooler| role.behind(pooler.url()))
    }

    pub async fn tenant(&self) -> Result<TenantId> {
        new_tenant(&self.pool).await
    }

    // What is to be done --------------------------------------------------------------------------

    pub async fn enqueue<J: Job>(&self, job: J) -> Result<JobId> {
        self.enqueue_with(job, Options::default()).await
    }

    pub async fn enqueue_with<J: Job>(&self, job: J, options: Options) -> Result<JobId> {
        let mut tx = self.queue.begin(Actor::system(self.tenant), Request::default());
        let enqueued = queue::enqueue_with(&mut tx, job, options).await?;
        tx.commit().await?;
        Ok(enqueued.id)
    }

    pub async fn enqueue_many<J: Job>(&self, jobs: impl IntoIterator<Item = J>) -> Result<Vec<JobId>> {
        self.enqueue_for(self.tenant, jobs).await
    }

    pub async fn enqueue_for<J: Job>(
        &self,
        tenant: TenantId,
        jobs: impl IntoIterator<Item = J>,
    ) -> Result<Vec<JobId>> {
        let mut tx = self.queue.begin(Actor::system(tenant), Request::default());
        let ids = queue::enqueue_many(&mut tx, jobs, &Options::default()).await?;
        tx.commit().await?;
        Ok(ids)
    }

    // What became of it ---------------------------------------------------------------------------

    pub async fn job(&self, id: JobId) -> JobRow {
        sqlx::query_as(
            "select state::text, attempt, fence, row_version, result, warning, progress, checkpoint, errors
             from jobs where id = $1",
        )
        .bind(id)
        .fetch_one(&self.pool)
        .await
        .expect("the job is there")
    }

    /// Waits for a state and answers with the job in it.
    pub async fn reaches(&self, id: JobId, state: &str, deadline: Duration) -> JobRow {
        eventually(
            deadline,
            format_args!("job {id} is {state}; it is {:?}", self.job(id).await),
            async || Some(self.job(id).await).filter(|job| job.state == state),
        )
        .await
    }

    pub async fn in_state(&self, state: &str) -> i64 {
        self.number(&format!("select count(*) from jobs where state::text = '{state}'")).await
    }

    /// Waits until no job is left to do.
    pub async fn settles(&self, deadline: Duration) {
        let open = "select count(*) from jobs where state not in ('succeeded', 'failed', 'cancelled')";
        eventually(deadline, "every job is over", async || (self.number(open).await == 0).then_some(()))
            .await;
    }

    /// The names of what a job did, in order.
    pub async fn effects(&self, id: JobId) -> Vec<String> {
        sqlx::query_scalar("select name from effects where job_id = $1 order by seq")
            .bind(id)
            .fetch_all(&self.pool)
            .await
            .expect("effects can be read")
    }

    /// How many rows of this name there are.
    pub async fn effects_named(&self, name: &str) -> i64 {
        self.number(&format!("select count(*) from effects where name = '{name}'")).await
    }

    /// Waits for so many rows of this name.
    pub async fn sees(&self, name: &str, at_least: i64, deadline: Duration) {
        eventually(deadline, format_args!("{at_least} effects named {name:?}"), async || {
            (self.effects_named(name).await >= at_least).then_some(())
        })
        .await;
    }

    /// # Panics
    /// Unless each of `jobs` jobs has exactly one row of this name.
    pub async fn once_each(&self, name: &str, jobs: i64) {
        let rows = self.effects_named(name).await;
        let distinct =
            self.number(&format!("select count(distinct job_id) from effects where name = '{name}'")).await;
        assert_eq!((rows, distinct), (jobs, jobs), "rows and jobs with the effect {name:?}, of {jobs} jobs");
    }

    /// One number of the database; null counts as 0. The database may be away for a moment.
    pub async fn number(&self, sql: &str) -> i64 {
        eventually(SOON, format_args!("an answer to {sql}"), async || {
            let sql = AssertSqlSafe(format!("select ({sql})::int8"));
            match sqlx::query_scalar::<_, Option<i64>>(sql).fetch_optional(&self.pool).await {
                Ok(number) => Some(number.flatten().unwrap_or_default()),
                Err(sqlx::Error::Database(error))
                    if !error.code().is_some_and(|code| code.starts_with("57")) =>
                {
                    panic!("{error}")
                }
                Err(_) => None,
            }
        })
        .await
    }

    /// Waits until a number of the database is at least this.
    pub async fn sees_number(&self, sql: &str, at_least: i64, deadline: Duration) {
        eventually(deadline, format_args!("at least {at_least}: {sql}"), async || {
            (self.number(sql).await >= at_least).then_some(())
        })
        .await;
    }

    /// Durations that a statement answers with, in milliseconds.
    pub async fn durations(&self, sql: &str) -> Vec<Duration> {
        let all: Vec<f64> = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_all(&self.pool)
            .await
            .expect("the test's own statement runs");
        all.into_iter().map(|ms| Duration::from_secs_f64(ms.max(0.0) / 1000.0)).collect()
    }

    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.pool.execute(AssertSqlSafe(sql)).await?;
        Ok(())
    }
}

fn client(database: &Database, pooler: Option<&PgBouncer>, release: Release) -> Result<Queue> {
    let db = Db::new(&DbOptions {
        url: pooler.map_or(database.url(), PgBouncer::url).into(),
        direct_url: Some(database.url().into()),
        max_connections: 40,
        application: "test".into(),
    })?;
    Ok(Queue::start(db, QueueOptions { release, listen: Listen::default(), redis_url: None })?)
}

async fn new_tenant(pool: &PgPool) -> Result<TenantId> {
    let id = TenantId::new();
    sqlx::query(
        "insert into tenants (id, name, slug) values ($1, 'Test', 't' || replace($1::text, '-', ''))",
    )
    .bind(id)
    .execute(pool)
    .await?;
    Ok(id)
}
