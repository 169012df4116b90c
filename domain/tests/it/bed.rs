//! A private database with two tenants, the people in them, and a worker that runs the product's
//! own kinds.

use std::{path::Path, sync::Arc, time::Duration};

use streamspace_common::{Actor, Creator, JobId, Role, TenantId, UserId};
use streamspace_domain::{Ports, identity::People, registry};
use streamspace_queue::{
    Db, DbOptions, Ended, Listen, Queue, QueueOptions, Release, Request, Tx, WorkerOptions,
    inspect::{self, JobRow, Scope},
    run_worker,
};
use streamspace_testkit::{Database, Postgres, eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct Bed {
    /// Dropped with the bed, and the database with it.
    _database: Database,
    pub queue: Queue,
    pub tenant: TenantId,
    pub other: TenantId,
}

pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<Ended>,
}

impl Running {
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("the worker does not panic");
    }
}

impl Bed {
    pub async fn new() -> Self {
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        let postgres = Postgres::shared().await;
        let database =
            postgres.template(&migrations).await.expect("a template").database().await.expect("a database");
        let db = Db::new(&DbOptions {
            url: database.url().to_owned(),
            direct_url: None,
            max_connections: 16,
            application: "test".into(),
        })
        .expect("a database URL");
        let listen = Listen { engine: true, live: false };
        let options = QueueOptions { release: Release::current(), listen, redis_url: None };
        let queue = Queue::start(db, options).expect("a queue");
        let bed = Self { _database: database, queue, tenant: TenantId::new(), other: TenantId::new() };
        for (tenant, slug) in [(bed.tenant, "one"), (bed.other, "two")] {
            sqlx::query("insert into tenants (id, name, slug) values ($1, $2, $2)")
                .bind(tenant.0)
                .bind(slug)
                .execute(bed.queue.db().pool())
                .await
                .expect("a tenant");
        }
        bed
    }

    /// A person, as they come with a request.
    pub async fn person(&self, tenant: TenantId, role: Role) -> Actor {
        let user = UserId::new();
        sqlx::query(
            "insert into users (id, tenant_id, email, username, name, role) values ($1, $2, $3, $4, 'N', $5)",
        )
        .bind(user.0)
        .bind(tenant.0)
        .bind(format!("{user}@example.org"))
        .bind(user.to_string())
        .bind(role.as_str())
        .execute(self.queue.db().pool())
        .await
        .expect("a person");
        Actor { tenant, by: Creator::User(user), user: Some(user), key: None, role, platform: false }
    }

    pub fn tx(&self, actor: &Actor) -> Tx {
        self.queue.begin(actor.clone(), Request::default())
    }

    pub fn worker(&self, ports: &Ports) -> Running {
        self.worker_with(ports, Duration::from_secs(2))
    }

    /// Whose jobs may go on for so long after it was asked to stop.
    pub fn worker_with(&self, ports: &Ports, shutdown_timeout: Duration) -> Running {
        let stop = CancellationToken::new();
        let options = WorkerOptions {
            lease: Duration::from_secs(3),
            heartbeat: Duration::from_secs(1),
            shutdown_timeout,
            ..WorkerOptions::default()
        };
        let handlers = tokio::runtime::Handle::current();
        let task = tokio::spawn(run_worker(
            self.queue.clone(),
            registry(ports),
            Arc::new(People),
            options,
            handlers,
            stop.clone(),
        ));
        Running { stop, task }
    }

    pub async fn execute(&self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(self.queue.db().pool()).await.expect(sql);
    }

    pub async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(self.queue.db().pool()).await.expect(sql)
    }

    pub async fn ends(&self, id: JobId) -> JobRow {
        eventually(Duration::from_secs(20), format!("{id} ends"), async || {
            let mut conn = self.queue.read().await.expect("a connection");
            let job = inspect::get(&mut conn, Scope::Installation, id).await.expect("read");
            job.filter(|job| job.state.is_terminal())
        })
        .await
    }
}
