//! Makes jobs claimable when their time comes: a timer to the next one, by the database's clock.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::{JobId, TenantId};
use tracing::warn;

use super::Engine;
use crate::{
    db::ANSWER,
    notice::{Lane, Notices},
};

/// The net under lost notices.
const AT_MOST: Duration = Duration::from_secs(1);
/// What is due and was not promoted is locked: by another process, which is promoting it, or by
/// somebody who takes longer.
const LOCKED: Duration = Duration::from_millis(5);

enum Promoted {
    /// There may be more.
    Some,
    Locked,
    /// Nothing is due for so long.
    Nothing(Duration),
}

impl Engine {
    pub(super) async fn promote(self: Arc<Self>) {
        let mut wait = Duration::ZERO;
        let mut locked_for = LOCKED;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.due.notified() => {}
                () = self.over.cancelled() => return,
            }
            let promoted = self.queue.db().direct_within(ANSWER, async |conn| self.promote_once(conn).await);
            wait = match promoted.await {
                Ok(Promoted::Locked) => locked_for,
                Ok(Promoted::Some) => Duration::ZERO,
                Ok(Promoted::Nothing(next)) => next.min(AT_MOST),
                Err(error) => {
                    warn!(%error, "promoting what is due failed");
                    AT_MOST
                }
            };
            locked_for = if wait == locked_for { (locked_for * 2).min(AT_MOST) } else { LOCKED };
        }
    }

    async fn promote_once(&self, conn: &mut PgConnection) -> sqlx::Result<Promoted> {
        // While it is not known what is due next, whatever is wakes this loop: also what commits while
        // that is read.
        self.set_next_due(None);
        match next_due(conn).await? {
            None => return Ok(Promoted::Nothing(AT_MOST)),
            Some((at, us)) if us > 0 => {
                self.set_next_due(Some(at));
                return Ok(Promoted::Nothing(Duration::from_micros(us.unsigned_abs())));
            }
            Some(_) => {}
        }
        let notices = promote(conn).await?;
        let promoted = !notices.is_empty();
        self.queue.tell(notices);
        Ok(if promoted { Promoted::Some } else { Promoted::Locked })
    }

    fn set_next_due(&self, next: Option<Timestamp>) {
        *self.next_due.lock().expect("no panic while it was held") = next;
    }
}

/// Makes jobs claimable whose time has come, and tells their lanes.
async fn promote(conn: &mut PgConnection) -> sqlx::Result<Notices> {
    let rows = sqlx::query!(
        r#"with due as materialized (
             select id from jobs
             where state in ('scheduled', 'retrying', 'snoozed', 'parked') and run_at <= queue.now()
             order by run_at limit 1000 for update skip locked)
           update jobs j set state = 'queued', order_at = j.run_at - j.priority * interval '1 minute',
                  row_version = j.row_version + 1
           where j.id = any (array (select id from due))
           returning j.id as "id: JobId", j.tenant_id as "tenant: TenantId", j.lane, j.order_at, j.row_version"#,
    )
    .fetch_all(conn)
    .await?;
    let mut notices = Notices::default();
    for row in rows {
        notices.claimable(Lane { name: row.lane, tenant: row.tenant }, row.order_at.to_jiff());
        notices.changed(row.id, row.row_version);
    }
    Ok(notices)
}

/// When the next job is due, and how many microseconds that is from now; none waits when `None`.
async fn next_due(conn: &mut PgConnection) -> sqlx::Result<Option<(Timestamp, i64)>> {
    let row = sqlx::query!(
        r#"select min(run_at) as at, (extract(epoch from min(run_at) - queue.now()) * 1000000)::bigint as us
           from jobs where state in ('scheduled', 'retrying', 'snoozed', 'parked')"#,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.at.zip(row.us).map(|(at, us)| (at.to_jiff(), us)))
}
