//! A test bed: a private database, the API on a port of its own, and people with keys.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use reqwest::{Method, RequestBuilder, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use streamspace_admin::Checks;
use streamspace_api::{Api, Parts};
use streamspace_common::{
    Actor, Config, JobId, MasterKeys, PLATFORM, Role, TenantId, UserId, config::MailConfig,
};
use streamspace_domain::{
    Ports,
    api_keys::{self, NewApiKey, Owner},
    identity::{self, NewOwner, NewTenant, People, Tier},
    mail::Mail,
    sign_in::Passwords,
};
use streamspace_http::HttpProviders;
use streamspace_queue::{
    Attempt, Db, DbOptions, Done, Failure, Job, Listen, Options, Queue, QueueOptions, Release, Request,
    WorkerOptions, enqueue_with, run_worker,
};
use streamspace_testkit::{Database, Postgres, Smtp};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub struct App {
    _database: Database,
    pub queue: Queue,
    pub address: SocketAddr,
    client: reqwest::Client,
    stop: CancellationToken,
    config: Config,
    master: MasterKeys,
    /// Two tenants, and a platform administrator in a third.
    pub ours: Tenant,
    pub theirs: Tenant,
    pub platform: Person,
}

pub struct Tenant {
    pub id: TenantId,
    pub owner: Person,
    pub operator: Person,
    pub user: Person,
    pub viewer: Person,
}

#[derive(Clone)]
pub struct Person {
    pub tenant: TenantId,
    /// Of the tenant.
    pub slug: String,
    pub email: String,
    pub id: UserId,
    pub role: Role,
    pub key: String,
}

/// Of whoever has one.
pub const PASSWORD: &str = "correct horse battery staple";

/// A kind that no worker of these tests runs: its jobs do what SQL says.
#[derive(Serialize, Deserialize)]
pub struct Nothing {}

impl Job for Nothing {
    const KIND: &'static str = "test.nothing";
    const QUEUE: &'static str = "tests";
    type Ctx = ();

    async fn run(self, _: &(), _: &Attempt) -> Result<Done, Failure> {
        Ok(Done::nothing())
    }
}

impl App {
    pub async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    pub async fn start_with(config: Config) -> Self {
        let providers = HttpProviders::of(&config);
        Self::start_beside(config, providers).await
    }

    /// Which talks so to identity providers.
    pub async fn start_beside(config: Config, providers: HttpProviders) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        let postgres = Postgres::shared().await;
        let database = postgres.template(&migrations).await.unwrap().database().await.unwrap();
        let queue = connect(&database);
        let ours = tenant(&queue, "Ours").await;
        let theirs = tenant(&queue, "Theirs").await;
        let platform = platform(&queue).await;
        let stop = CancellationToken::new();
        let master = MasterKeys::generate();
        let address = serve(&config, queue.clone(), master.clone(), providers, stop.clone()).await;
        // Where somebody is sent is the answer that tests look at.
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let client = client.timeout(Duration::from_secs(60)).build().unwrap();
        Self { _database: database, queue, address, client, stop, config, master, ours, theirs, platform }
    }

    /// An admin beside this owner.
    pub async fn admin(&self, owner: &Person) -> Person {
        self.colleague(owner, Role::Admin, "admin").await
    }

    /// Somebody of this role and username beside this owner.
    pub async fn colleague(&self, owner: &Person, role: Role, username: &str) -> Person {
        person(&self.queue, owner.tenant, &owner.slug, role, username).await
    }

    /// Another process of the same installation: it hears of this one's changes by NOTIFY only.
    pub async fn another(&self) -> SocketAddr {
        self.another_with(&self.config).await
    }

    pub async fn another_with(&self, config: &Config) -> SocketAddr {
        let providers = HttpProviders::of(config);
        serve(config, connect(&self._database), self.master.clone(), providers, self.stop.clone()).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub fn request(&self, who: &Person, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).header("x-api-key", &who.key)
    }

    pub async fn get(&self, who: &Person, path: &str) -> Answer {
        Answer::of(self.request(who, Method::GET, path)).await
    }

    /// Of one of several processes.
    pub async fn get_at(&self, process: SocketAddr, who: &Person, path: &str) -> Answer {
        let request = self.client.get(format!("http://{process}{path}"));
        Answer::of(request.header("x-api-key", &who.key)).await
    }

    pub async fn post(&self, who: &Person, path: &str, body: Value) -> Answer {
        Answer::of(self.request(who, Method::POST, path).json(&body)).await
    }

    /// A job of somebody's.
    pub async fn job(&self, who: &Person) -> JobId {
        let actor = Actor {
            tenant: who.tenant,
            by: streamspace_common::Creator::User(who.id),
            user: Some(who.id),
            key: None,
            role: who.role,
            platform: false,
        };
        let mut tx = self.queue.begin(actor, Request::default());
        let id = enqueue_with(&mut tx, Nothing {}, Options::default()).await.unwrap().id;
        tx.commit().await.unwrap();
        id
    }

    /// Changes a job as a worker would, and tells nobody.
    pub async fn set(&self, job: JobId, what: &str) {
        let sql = format!("update jobs set {what}, row_version = row_version + 1 where id = '{job}'");
        self.execute(&sql).await;
    }

    pub async fn succeed(&self, job: JobId) {
        self.set(job, "state = 'succeeded', finished_at = queue.now()").await;
    }

    pub async fn fail(&self, job: JobId) {
        self.set(job, "state = 'failed', finished_at = queue.now()").await;
    }

    pub async fn execute(&self, sql: &str) {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(self.queue.db().pool()).await.unwrap();
    }

    pub async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(self.queue.db().pool()).await.unwrap()
    }

    /// Their keys may make so many requests an hour.
    pub async fn limit(&self, who: &Person, hourly: u32) {
        self.execute(&format!("update api_keys set hourly_limit = {hourly} where user_id = '{}'", who.id))
            .await;
    }

    pub async fn revoke(&self, who: &Person) {
        self.execute(&format!("update api_keys set active = false where user_id = '{}'", who.id)).await;
    }

    pub fn master(&self) -> &MasterKeys {
        &self.master
    }

    pub async fn set_password(&self, who: &Person) {
        self.set_password_to(who, PASSWORD).await;
    }

    pub async fn set_password_to(&self, who: &Person, password: &str) {
        let hash = Passwords::new(&self.config.auth).hash(password.into()).await.unwrap();
        self.execute(&format!("update users set password_hash = '{hash}' where id = '{}'", who.id)).await;
    }

    /// A worker that mails to this server.
    pub fn mails_to(&self, server: &Smtp) {
        let config = MailConfig {
            host: Some("127.0.0.1".to_owned()),
            port: server.port(),
            tls: false,
            ..MailConfig::default()
        };
        let mailer = streamspace_mail::Smtp::new(&config, streamspace_mail::Options::default()).unwrap();
        let mail = Mail { mailer: Arc::new(mailer), public_url: "https://streams.example".to_owned() };
        let registry = streamspace_domain::registry(&Ports { mail, ..Ports::default() });
        let options = WorkerOptions { shutdown_timeout: Duration::from_secs(2), ..WorkerOptions::default() };
        let handlers = tokio::runtime::Handle::current();
        let (queue, stop) = (self.queue.clone(), self.stop.clone());
        tokio::spawn(run_worker(queue, registry, Arc::new(People), options, handlers, stop));
    }

    pub fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn connect(database: &Database) -> Queue {
    let db = Db::new(&DbOptions {
        url: database.url().to_owned(),
        direct_url: None,
        max_connections: 14,
        application: "api tests".to_owned(),
    });
    let options =
        QueueOptions { release: Release(1), listen: Listen { engine: false, live: true }, redis_url: None };
    Queue::start(db.unwrap(), options).unwrap()
}

async fn serve(
    config: &Config,
    queue: Queue,
    master: MasterKeys,
    providers: HttpProviders,
    stop: CancellationToken,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let checked = queue.clone();
    let checks = Checks::new().required("database", move || {
        let queue = checked.clone();
        async move { sqlx::query("select 1").execute(queue.db().pool()).await.map(drop) }
    });
    let ports = Ports::default();
    let registry = streamspace_domain::registry(&ports);
    let schedules = streamspace_domain::schedules(&ports);
    let identity_providers = Arc::new(providers);
    let parts = Parts { queue, registry, schedules, checks, master, identity_providers, stop };
    tokio::spawn(streamspace_api::serve(listener, Api::new(config, parts)));
    address
}

async fn tenant(queue: &Queue, name: &str) -> Tenant {
    let (tenant, owner) = with_owner(queue, name, false).await;
    Tenant {
        id: tenant,
        operator: person(queue, tenant, &owner.slug, Role::Operator, "operator").await,
        user: person(queue, tenant, &owner.slug, Role::User, "user").await,
        viewer: person(queue, tenant, &owner.slug, Role::Viewer, "viewer").await,
        owner,
    }
}

async fn platform(queue: &Queue) -> Person {
    with_owner(queue, "Operators", true).await.1
}

async fn with_owner(queue: &Queue, name: &str, platform_admin: bool) -> (TenantId, Person) {
    let mut tx = queue.begin(Actor::system(PLATFORM), Request::default());
    let new = NewTenant {
        name: name.to_owned(),
        slug: None,
        contact_email: None,
        tier: Tier::Standard,
        owner: NewOwner {
            email: "owner@example.org".to_owned(),
            name: "Owner".to_owned(),
            platform_admin,
            password_hash: None,
            email_verified: false,
        },
    };
    let (tenant, owner) = identity::create_tenant(&mut tx, new).await.unwrap();
    tx.commit().await.unwrap();
    let key = key_of(queue, tenant.id, owner.id, &["*"]).await;
    (
        tenant.id,
        Person {
            tenant: tenant.id,
            slug: tenant.slug,
            email: owner.email,
            id: owner.id,
            role: Role::Owner,
            key,
        },
    )
}

async fn person(queue: &Queue, tenant: TenantId, slug: &str, role: Role, username: &str) -> Person {
    let (id, email) = (UserId::new(), format!("{username}@example.org"));
    sqlx::query("insert into users (id, tenant_id, email, username, name, role) values ($1, $2, $3, $4, 'Somebody', $5)")
        .bind(id.0)
        .bind(tenant.0)
        .bind(&email)
        .bind(username)
        .bind(role.as_str())
        .execute(queue.db().pool())
        .await
        .unwrap();
    let key = key_of(queue, tenant, id, &["*"]).await;
    Person { tenant, slug: slug.to_owned(), email, id, role, key }
}

pub async fn key_of(queue: &Queue, tenant: TenantId, user: UserId, scopes: &[&str]) -> String {
    let mut tx = queue.begin(Actor::system(PLATFORM), Request::default());
    let new = NewApiKey {
        name: "a test's".to_owned(),
        owner: Owner::User(user),
        scopes: scopes.iter().map(ToString::to_string).collect(),
        hourly_limit: 10_000,
        expires_at: None,
    };
    let (_, secret) = api_keys::create_in(&mut tx, tenant, new).await.unwrap();
    tx.commit().await.unwrap();
    secret.expose().clone()
}

/// An answer, read to its end.
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Self {
        Self::read(request.send().await.unwrap()).await
    }

    pub async fn read(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// It is this problem, and tells nothing that it must not.
    #[track_caller]
    pub fn problem(self, status: u16, name: &str) -> Self {
        let answer = self.expect(status);
        let problem = answer.json();
        assert_eq!(problem["type"], format!("/problems/{name}"), "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert!(problem["instance"].is_string() && problem["requestId"].is_string(), "{problem}");
        answer
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

pub fn any_id() -> Uuid {
    Uuid::now_v7()
}
