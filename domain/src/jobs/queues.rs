//! Queues. Platform administrators pause and limit them for everyone, a tenant's operators for the
//! tenant's jobs.

use serde_json::json;
use sqlx::PgConnection;
use streamspace_common::{Actor, PLATFORM, TenantId};
use streamspace_queue::{Registry, Tx, queues};

pub use streamspace_queue::queues::{ChangeQueue, Controls, QueueRow as Queue, Rate};

use super::{Error, visibility::figures};
use crate::{
    audit::{self, Entry},
    identity::{Permission, Require},
};

/// For whose jobs somebody's pauses and limits hold.
fn owner(actor: &Actor) -> TenantId {
    if actor.platform { PLATFORM } else { actor.tenant }
}

pub async fn list(conn: &mut PgConnection, actor: &Actor, registry: &Registry) -> Result<Vec<Queue>, Error> {
    actor.require(Permission::QueuesRead)?;
    Ok(queues::list(conn, figures(actor), &registry.queues()).await?)
}

pub async fn get(
    conn: &mut PgConnection,
    actor: &Actor,
    registry: &Registry,
    name: &str,
) -> Result<Queue, Error> {
    actor.require(Permission::QueuesRead)?;
    queues::get(conn, figures(actor), &registry.queues(), name).await?.ok_or(Error::NoQueue)
}

pub async fn pause(tx: &mut Tx, registry: &Registry, name: &str) -> Result<Queue, Error> {
    let change = ChangeQueue { paused: Some(true), ..ChangeQueue::default() };
    set(tx, registry, name, "queues.pause", &change).await
}

pub async fn resume(tx: &mut Tx, registry: &Registry, name: &str) -> Result<Queue, Error> {
    let change = ChangeQueue { paused: Some(false), ..ChangeQueue::default() };
    set(tx, registry, name, "queues.resume", &change).await
}

/// Sets or removes limits, and pauses or resumes with them.
pub async fn change(
    tx: &mut Tx,
    registry: &Registry,
    name: &str,
    change: &ChangeQueue,
) -> Result<Queue, Error> {
    set(tx, registry, name, "queues.change", change).await
}

async fn set(
    tx: &mut Tx,
    registry: &Registry,
    name: &str,
    action: &'static str,
    change: &ChangeQueue,
) -> Result<Queue, Error> {
    let actor = tx.actor().clone();
    let before = get(tx.conn().await?, &actor, registry, name).await?;
    tx.require(Permission::QueuesControl)?;
    if change.max_running.flatten().is_some_and(|most| most < 0) {
        return Err(Error::Invalid { pointer: "/maxRunning", detail: "0 or more".into() });
    }
    queues::set(tx, owner(&actor), name, change).await?;
    let after = get(tx.conn().await?, &actor, registry, name).await?;
    let entry = Entry::new(action, "queue", name).before(shown(&before, &actor)).after(shown(&after, &actor));
    audit::record(tx, entry).await?;
    Ok(after)
}

/// What the actor's own controls are, for the audit.
fn shown(queue: &Queue, actor: &Actor) -> serde_json::Value {
    let controls = if actor.platform { &queue.everyone } else { &queue.tenant };
    json!({
        "paused": controls.paused_at.is_some(),
        "maxRunning": controls.max_running,
        "rate": controls.rate.map(|rate| rate.to_string()),
        "everyone": actor.platform,
    })
}
