//! Workers run the jobs of all tenants. A tenant's operators see how many of theirs each runs, and
//! neither the host nor who else is there.

use serde_json::json;
use sqlx::PgConnection;
use streamspace_common::{Actor, BootId, JobId};
use streamspace_queue::{Tx, workers};

pub use streamspace_queue::workers::{Status, WorkerRow as Worker};

use super::{Error, visibility::figures};
use crate::{
    audit::{self, Entry},
    identity::{Permission, Require},
};

fn shown(actor: &Actor, worker: Worker) -> Worker {
    if actor.platform {
        return worker;
    }
    Worker { host: String::new(), pid: 0, abandoned: 0, ..worker }
}

pub async fn list(conn: &mut PgConnection, actor: &Actor) -> Result<Vec<Worker>, Error> {
    actor.require(Permission::WorkersRead)?;
    let workers = workers::list(conn, figures(actor)).await?;
    Ok(workers.into_iter().map(|worker| shown(actor, worker)).collect())
}

pub async fn get(conn: &mut PgConnection, actor: &Actor, id: BootId) -> Result<Worker, Error> {
    actor.require(Permission::WorkersRead)?;
    let worker = workers::get(conn, figures(actor), id).await?.ok_or(Error::NoWorker)?;
    Ok(shown(actor, worker))
}

/// The jobs that it runs, as far as one may see them.
pub async fn running(conn: &mut PgConnection, actor: &Actor, id: BootId) -> Result<Vec<JobId>, Error> {
    actor.require(Permission::WorkersRead)?;
    Ok(workers::running(conn, figures(actor), id).await?)
}

/// It takes no more jobs, and ends when those that it runs have ended.
pub async fn drain(tx: &mut Tx, id: BootId) -> Result<Worker, Error> {
    set_draining(tx, id, true).await
}

/// Takes a drain back, if the worker has not ended yet.
pub async fn resume(tx: &mut Tx, id: BootId) -> Result<Worker, Error> {
    set_draining(tx, id, false).await
}

async fn set_draining(tx: &mut Tx, id: BootId, draining: bool) -> Result<Worker, Error> {
    tx.require(Permission::WorkersControl)?;
    if !workers::set_draining(tx, id, draining).await? {
        return Err(Error::NoWorker);
    }
    let action = if draining { "workers.drain" } else { "workers.resume" };
    audit::record(tx, Entry::new(action, "worker", id).after(json!({ "draining": draining }))).await?;
    let actor = tx.actor().clone();
    get(tx.conn().await?, &actor, id).await
}
