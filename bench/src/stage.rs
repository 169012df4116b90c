//! Where the measuring happens: a private PostgreSQL at its default durability, databases made from
//! the migrations, rows as `enqueue` makes them.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row as _};
use streamspace_common::{Actor, JobId, TenantId};
use streamspace_queue::{Db, DbOptions, Job, Listen, Queue, QueueOptions, Release, enqueue, tx::Request};
use streamspace_testkit::{Database, Options, Postgres};
use uuid::Uuid;

use crate::cpu;

const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");

/// The server, with what a small installation is given and nothing that loosens durability.
pub async fn server() -> Result<Postgres> {
    let settings = [
        "shared_buffers=512MB",
        "max_wal_size=4GB",
        "checkpoint_timeout=15min",
        "shared_preload_libraries=pg_stat_statements",
    ];
    let settings = settings.map(str::to_owned).to_vec();
    let postgres = Postgres::start(Options { fsync: true, settings }).await?;
    postgres.template(Path::new(MIGRATIONS)).await?;
    Ok(postgres)
}

/// One database to measure in.
pub struct Stage {
    database: Database,
    pub postmaster: u32,
    /// Rows made so far: their ids and order follow it.
    made: i64,
}

/// What a filled row has instead of its template's value.
pub type Change = (&'static str, &'static str);

/// Of rows that succeeded long ago.
pub const FINISHED: [Change; 5] = [
    ("state", "'succeeded'"),
    ("fence", "2"),
    ("attempt", "1"),
    ("claimed_at", "at - interval '10 days'"),
    ("finished_at", "at - interval '10 days'"),
];

impl Stage {
    pub async fn new(postgres: &Postgres) -> Result<Self> {
        let database = postgres.database().await?;
        let mut connection = PgConnection::connect(database.url()).await?;
        let postmaster = cpu::postmaster(&mut connection).await?;
        Ok(Self { database, postmaster, made: 0 })
    }

    pub fn url(&self) -> &str {
        self.database.url()
    }

    pub async fn connect(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(self.url()).await?)
    }

    /// A process's handle of the queue.
    pub fn queue(&self, application: &str, listen: Listen) -> Result<Queue> {
        let db = Db::new(&DbOptions {
            url: self.url().to_owned(),
            direct_url: None,
            max_connections: 48,
            application: application.to_owned(),
        })?;
        Ok(Queue::start(db, QueueOptions { release: Release::current(), listen, redis_url: None })?)
    }

    /// Makes a row of this kind the template of those that are filled in.
    pub async fn template<J: Job>(&self, job: J) -> Result<()> {
        let queue = self.queue("bench template", Listen::default())?;
        let mut tx = queue.begin(Actor::system(tenant(0)), Request::default());
        let JobId(id) = enqueue(&mut tx, job).await?.id;
        tx.commit().await?;
        queue.close().await;
        let mut connection = self.connect().await?;
        connection.execute("create table if not exists template (like jobs)").await?;
        sqlx::query("delete from template where kind = $1").bind(J::KIND).execute(&mut connection).await?;
        sqlx::query("with taken as (delete from jobs where id = $1 returning *) insert into template select * from taken")
            .bind(id)
            .execute(&mut connection)
            .await?;
        Ok(())
    }

    /// Adds rows, like the template of their kind but for what every job has of its own, and the
    /// changes; tenants take turns.
    pub async fn fill(&mut self, kind: &str, rows: i64, tenants: u128, changes: &[Change]) -> Result<()> {
        if rows <= 0 {
            return Ok(());
        }
        let mut connection = self.connect().await?;
        let columns: Vec<String> = sqlx::query_scalar(
            "select attname::text from pg_attribute where attrelid = 'jobs'::regclass and attnum > 0
             and not attisdropped order by attnum",
        )
        .fetch_all(&mut connection)
        .await?;
        let own: [Change; 5] = [
            // As UUIDv7 would have it: in the order of their making, with a random tail.
            (
                "id",
                "(lpad(to_hex(1700000000000 + i / 1000), 12, '0') || '7' || lpad(to_hex(i % 1000), 3, '0')
                  || '8' || substr(md5(i::text), 1, 15))::uuid",
            ),
            ("tenant_id", "($2::uuid[])[1 + i % cardinality($2::uuid[])]"),
            ("run_at", "at"),
            ("order_at", "at"),
            ("created_at", "at"),
        ];
        let value = |column: &String| {
            let changed = changes.iter().chain(&own).find(|(name, _)| name == column);
            changed.map_or_else(|| format!("t.{column}"), |(_, value)| (*value).to_owned())
        };
        let values: Vec<String> = columns.iter().map(value).collect();
        let sql = format!(
            "insert into jobs ({}) select {} from template t, generate_series($3::bigint, $4::bigint) as i,
             lateral (select now() - interval '1 hour' + i * interval '10 us' as at) as a where t.kind = $1",
            columns.join(", "),
            values.join(", ")
        );
        let tenants: Vec<Uuid> = (0..tenants).map(|n| tenant(n).0).collect();
        let filled = sqlx::query(AssertSqlSafe(sql))
            .bind(kind)
            .bind(&tenants)
            .bind(self.made)
            .bind(self.made + rows - 1)
            .execute(&mut connection)
            .await
            .context("filling rows")?;
        anyhow::ensure!(filled.rows_affected() == rows.unsigned_abs(), "no template of {kind}");
        self.made += rows;
        Ok(())
    }

    /// Adds rows until so many can be claimed from a queue; `kind`'s queue is named like its tail.
    pub async fn top_up(&mut self, kind: &str, to: i64, tenants: u128) -> Result<()> {
        let queue = kind.rsplit('.').next().unwrap_or(kind);
        let mut connection = self.connect().await?;
        let waiting: i64 =
            sqlx::query_scalar("select count(*) from jobs where state = 'queued' and lane = $1")
                .bind(queue)
                .fetch_one(&mut connection)
                .await?;
        self.fill(kind, to - waiting, tenants, &[]).await
    }

    /// Statistics and visibility as autovacuum would leave them.
    pub async fn settle(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        connection.execute("vacuum analyze jobs").await?;
        Ok(())
    }

    pub async fn execute(&self, sql: &'static str) -> Result<u64> {
        Ok(self.connect().await?.execute(sql).await?.rows_affected())
    }

    pub async fn count(&self, sql: &'static str) -> Result<i64> {
        Ok(self.connect().await?.fetch_one(sql).await?.get(0))
    }
}

/// The nth tenant; no row of it is needed, since jobs do not refer to one.
pub fn tenant(n: u128) -> TenantId {
    TenantId(Uuid::from_u128(0xbe0c_0000_0000_7000_8000_0000_0000_0000 + n))
}

/// How long one turn lasts: until it runs evenly, and then.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub warm_up: Duration,
    pub window: Duration,
    pub rounds: usize,
}

impl Turn {
    pub fn new(quick: bool) -> Self {
        Self {
            warm_up: Duration::from_millis(300),
            window: Duration::from_millis(if quick { 700 } else { 1500 }),
            rounds: if quick { 3 } else { 5 },
        }
    }
}
