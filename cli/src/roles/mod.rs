//! The roles, alone or together in one process: what they share is made here, and ends here.

mod checks;
mod listen;
mod schema_gate;

use std::{
    io,
    process::ExitCode,
    sync::{Arc, OnceLock},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use streamspace_admin::Checks;
use streamspace_api::{Api, Parts};
use streamspace_common::{Config, MasterKeys, telemetry};
use streamspace_domain::{Ports, audit, identity::People, mail::Mail};
use streamspace_http::HttpProviders;
use streamspace_queue::{Ended, Listen, Queue, QueueOptions, Release, retention::Retention};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    database::Database,
    failure::Advice,
    settings::{Flags, Settings},
    signals,
};

/// Which roles a process has.
#[derive(Clone, Copy, Debug)]
pub struct Roles {
    /// Of the process, as `pg_stat_activity` shows it.
    pub name: &'static str,
    pub api: bool,
    pub worker: bool,
    pub scheduler: bool,
}

impl Roles {
    pub const ALL: Self = Self { name: "streamspace up", api: true, worker: true, scheduler: true };
    pub const API: Self = Self { name: "streamspace api", api: true, worker: false, scheduler: false };
    pub const WORKER: Self = Self { name: "streamspace worker", api: false, worker: true, scheduler: false };
    pub const SCHEDULER: Self =
        Self { name: "streamspace scheduler", api: false, worker: false, scheduler: true };
}

/// `streamspace api`, `worker` or `scheduler`.
#[derive(Args)]
pub struct Role<F: Flags> {
    #[command(flatten)]
    flags: F,
    #[command(flatten)]
    settings: Settings,
}

impl<F: Flags> Role<F> {
    pub async fn run(self, roles: Roles) -> Result<ExitCode> {
        let config = self.settings.load_with(self.flags.given())?;
        if !config.database.is_configured() {
            return Err(Advice::new(
                "no database is configured",
                "set database.url (STREAMSPACE_DATABASE_URL); `streamspace up` is what brings a database along",
            )
            .into());
        }
        let shutdown = signals::shutdown(|| {})?;
        let watched = Watched::start(&config, shutdown).await?;
        Process::start(config, roles, watched).await?.run().await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A process that those who watch it can ask how it is, from its first moment: before there is a
/// database it lives and is not ready.
pub struct Watched {
    shutdown: CancellationToken,
    checks: Checks,
    queue: Arc<OnceLock<Queue>>,
    admin: JoinHandle<io::Result<()>>,
    /// When the admin listener ends, which is last.
    over: CancellationToken,
}

impl Watched {
    pub async fn start(config: &Config, shutdown: CancellationToken) -> Result<Self> {
        let listener = listen::bind(config.server.admin_address(), "server.admin_port").await?;
        let queue = Arc::default();
        let checks = checks::of(&queue, config, &shutdown);
        let over = CancellationToken::new();
        let serving = streamspace_admin::serve(listener, checks.clone(), telemetry::metrics(), over.clone());
        Ok(Self { shutdown, checks, queue, admin: tokio::spawn(serving), over })
    }
}

/// A process on its database. Its public port is bound, so what it serves can be told.
pub struct Process {
    pub config: Config,
    pub queue: Queue,
    roles: Roles,
    watched: Watched,
    public: Option<TcpListener>,
}

impl Process {
    /// Makes the connections' pool and binds the public port; nothing is asked of the database yet.
    pub async fn start(mut config: Config, roles: Roles, watched: Watched) -> Result<Self> {
        let public = match roles.api {
            true => Some(listen::bind(config.server.address(), "server.port").await?),
            false => None,
        };
        if let Some(public) = &public {
            config.server.port = public.local_addr().context("the port is bound")?.port();
        }
        let database = Database::configured(&config)?.context("no database is configured")?;
        let queue = Queue::start(
            database.db(roles.name, config.database.max_connections)?,
            QueueOptions {
                release: Release::current(),
                listen: Listen { engine: roles.worker || roles.scheduler, live: roles.api },
                redis_url: config.redis.url.as_ref().map(|url| url.expose().clone()),
            },
        )?;
        watched.queue.set(queue.clone()).ok().context("a process has one queue")?;
        Ok(Self { config, queue, roles, watched, public })
    }

    /// Works until it is told to stop, then drains: no more requests and claims, running jobs go on
    /// for a while, and only then the admin listener and the connections end.
    pub async fn run(self) -> Result<()> {
        let Watched { shutdown, checks, admin, over, .. } = self.watched;
        // Whoever comes meanwhile is told so.
        let waited = CancellationToken::new();
        let turning_away = match &self.public {
            Some(public) => {
                Some(tokio::spawn(streamspace_api::turn_away(listen::again(public)?, waited.clone())))
            }
            None => None,
        };
        let ready = tokio::select! {
            ready = schema_gate::wait(&self.queue) => ready.map(|()| true),
            () = shutdown.cancelled() => Ok(false),
        };
        waited.cancel();
        if let Some(turning_away) = turning_away {
            turning_away.await.context("the public port panicked")?.context("the public port failed")?;
        }
        let outcome = match ready {
            Ok(true) => {
                let api = self.public.map(|listener| (listener, checks));
                work(&self.config, &self.queue, self.roles, api, &shutdown).await
            }
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        self.queue.close().await;
        over.cancel();
        admin.await.context("the admin listener panicked")?.context("the admin listener failed")?;
        outcome
    }
}

/// Runs the roles side by side. One that fails takes the others with it: a process that does half of
/// what it is for looks well to whoever watches it. One that was told to end (an operator drained the
/// worker) does not.
async fn work(
    config: &Config,
    queue: &Queue,
    roles: Roles,
    api: Option<(TcpListener, Checks)>,
    shutdown: &CancellationToken,
) -> Result<()> {
    let stop = shutdown.child_token();
    let mut running = JoinSet::new();
    if let Some((listener, checks)) = api {
        running.spawn(serve(config.clone(), queue.clone(), listener, checks, stop.clone()));
    }
    if roles.worker {
        // Beside other roles it stays when an operator drains it; alone it ends, to be replaced.
        let stays = roles.api || roles.scheduler;
        running.spawn(worker(config.clone(), queue.clone(), stays, stop.clone()));
    }
    if roles.scheduler {
        running.spawn(scheduler(config.clone(), queue.clone(), stop.clone()));
    }
    info!("{} runs", roles.name);
    let mut outcome = Ok(());
    while let Some(ended) = running.join_next().await {
        let ended = ended.context("a role panicked").flatten();
        if ended.is_err() {
            stop.cancel();
        }
        outcome = outcome.and(ended);
    }
    outcome
}

async fn serve(
    config: Config,
    queue: Queue,
    listener: TcpListener,
    checks: Checks,
    stop: CancellationToken,
) -> Result<()> {
    let ports = ports(&config);
    let master = MasterKeys::load(&config.master_key_file())?;
    let parts = Parts {
        queue,
        master,
        registry: streamspace_domain::registry(&ports),
        schedules: streamspace_domain::schedules(&ports),
        checks,
        identity_providers: Arc::new(HttpProviders::of(&config)),
        stop,
    };
    streamspace_api::serve(listener, Api::new(&config, parts)).await.context("the public port failed")
}

async fn worker(config: Config, queue: Queue, stays: bool, stop: CancellationToken) -> Result<()> {
    let registry = streamspace_domain::registry(&Ports { mail: mail(&config)?, ..ports(&config) });
    let ended = streamspace_worker::run(queue, registry, Arc::new(People), &config.jobs, stays, stop).await;
    match ended.context("cannot start the threads of jobs")? {
        Ended::Stopped => Ok(()),
        Ended::Abandoned => {
            bail!("too many jobs ignored that they were told to stop; only a new process frees their threads")
        }
        Ended::Broken => bail!("a part of the worker ended by itself; the log says which"),
    }
}

async fn scheduler(config: Config, queue: Queue, stop: CancellationToken) -> Result<()> {
    streamspace_scheduler::run(queue, streamspace_domain::schedules(&ports(&config)), stop).await;
    Ok(())
}

/// Of a worker: no other role sends any.
fn mail(config: &Config) -> Result<Mail> {
    let public_url = config.server.public_url();
    if config.mail.host.is_some() && config.server.public_url.is_none() {
        warn!("links in mails lead to {public_url}: set server.public_url to where people reach it");
    }
    Ok(Mail { mailer: streamspace_mail::of_config(config)?, public_url })
}

fn ports(config: &Config) -> Ports {
    Ports {
        retention: Retention {
            succeeded: config.jobs.retention_succeeded,
            cancelled: config.jobs.retention_cancelled,
            failed: config.jobs.retention_failed,
        },
        audit: audit::Kept(config.audit.retention),
        ..Ports::default()
    }
}
