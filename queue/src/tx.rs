//! [`Tx`]: a transaction that knows who acts, and tells what it did only after the commit.

use jiff::Timestamp;
use sqlx::{PgConnection, Postgres, Transaction};
use streamspace_common::{Actor, TenantId};

use crate::{events, handle::Queue, notice::Notices};

/// The request that a transaction belongs to; carried into the jobs that it enqueues.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    pub address: Option<std::net::IpAddr>,
}

pub struct Tx {
    queue: Queue,
    actor: Actor,
    request: Request,
    open: Option<Transaction<'static, Postgres>>,
    notices: Notices,
    happened: Vec<String>,
}

impl Tx {
    pub(crate) fn new(queue: Queue, actor: Actor, request: Request) -> Self {
        Self { queue, actor, request, open: None, notices: Notices::default(), happened: Vec::new() }
    }

    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    pub fn tenant(&self) -> TenantId {
        self.actor.tenant
    }

    /// For the scheduler, which fires for each tenant in one transaction, and for whoever finds out only in
    /// the transaction who it is that comes.
    pub fn act_as(&mut self, actor: Actor) {
        self.actor = actor;
    }

    pub fn request(&self) -> &Request {
        &self.request
    }

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The connection, taken from the pool at the first call: never while a request's body is
    /// still arriving.
    pub async fn conn(&mut self) -> sqlx::Result<&mut PgConnection> {
        if self.open.is_none() {
            self.open = Some(self.queue.db().begin().await?);
        }
        Ok(self.open.as_mut().expect("opened above"))
    }

    /// The database's time, which is the queue's.
    pub async fn now(&mut self) -> sqlx::Result<Timestamp> {
        let conn = self.conn().await?;
        let now = sqlx::query_scalar!(r#"select queue.now() as "now!""#).fetch_one(conn).await?;
        Ok(now.to_jiff())
    }

    /// Told after the commit, and only then.
    pub fn notices(&mut self) -> &mut Notices {
        &mut self.notices
    }

    /// Wakes the jobs of this tenant that are parked for `event`, when this commits.
    pub fn happened(&mut self, event: impl Into<String>) {
        self.happened.push(event.into());
    }

    pub async fn commit(mut self) -> sqlx::Result<()> {
        if !self.happened.is_empty() {
            // Last, so that the rows of popular events are locked only for a moment; in order, so
            // that two transactions can't wait for each other.
            let mut happened = std::mem::take(&mut self.happened);
            happened.sort_unstable();
            happened.dedup();
            let tenant = self.tenant();
            let woken = events::wake(self.conn().await?, tenant, &happened).await?;
            self.notices.merge(woken);
        }
        if let Some(open) = self.open.take() {
            open.commit().await?;
        }
        self.queue.tell(std::mem::take(&mut self.notices));
        Ok(())
    }

    /// Undoes everything; so does dropping it, a little later.
    pub async fn rollback(mut self) -> sqlx::Result<()> {
        match self.open.take() {
            Some(open) => open.rollback().await,
            None => Ok(()),
        }
    }
}
