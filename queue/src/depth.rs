//! Depth and oldest age of queues, for the whole fleet.
//!
//! They are counted, not kept by deltas (docs/decisions/0005-depths-are-counted.md): one scan of the partial
//! indexes, which hold only what waits or runs, by the one scheduler that holds the lease, and no
//! more often than it can afford.

use std::{collections::BTreeSet, time::Duration};

use sqlx::PgConnection;
use streamspace_common::BootId;

/// Counts everything anew, and stores it per queue and tenant.
pub async fn recount(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!(
        r#"with queued as (
             select split_part(l.lane, '/', 1) as queue, l.tenant_id, l.n, h.run_at
             from (select lane, tenant_id, count(*) as n from jobs where state = 'queued' group by lane, tenant_id) l
             left join lateral (
               select run_at from jobs where state = 'queued' and lane = l.lane and tenant_id = l.tenant_id
               order by order_at, id limit 1) h on true),
           counted as (
             select queue, tenant_id, sum(waiting) as waiting, sum(delayed) as delayed, sum(blocked) as blocked,
                    sum(parked) as parked, sum(running) as running, min(oldest_at) as oldest_at
             from (
               select queue, tenant_id, n as waiting, 0 as delayed, 0 as blocked, 0 as parked, 0 as running,
                      run_at as oldest_at from queued
               union all
               select queue, tenant_id, 0, count(*) filter (where state <> 'parked'), 0,
                      count(*) filter (where state = 'parked'), 0, null
               from jobs where state in ('scheduled', 'retrying', 'snoozed', 'parked') group by queue, tenant_id
               union all
               select queue, tenant_id, 0, 0, count(*), 0, 0, null from jobs where state = 'blocked' group by queue, tenant_id
               union all
               select queue, tenant_id, 0, 0, 0, 0, count(*), null from jobs where state = 'running' group by queue, tenant_id
             ) parts group by queue, tenant_id),
           gone as (
             delete from queue_depths d
             where not exists (select from counted c where c.queue = d.queue and c.tenant_id = d.tenant_id))
           insert into queue_depths as d (queue, tenant_id, waiting, delayed, blocked, parked, running, oldest_at, counted_at)
           select queue, tenant_id, waiting, delayed, blocked, parked, running, oldest_at, queue.now() from counted
           on conflict (queue, tenant_id) do update set
             waiting = excluded.waiting, delayed = excluded.delayed, blocked = excluded.blocked,
             parked = excluded.parked, running = excluded.running, oldest_at = excluded.oldest_at,
             counted_at = excluded.counted_at"#,
    )
    .execute(conn)
    .await
    .map(drop)
}

/// What waits in a queue, of all tenants but those that are suspended: more workers would not help it.
#[derive(Clone, Debug, PartialEq)]
pub struct Depth {
    pub queue: String,
    pub waiting: i64,
    /// Since when the first of a lane could have run, of all lanes the longest. With priorities another
    /// may have waited longer: the index of claims, which is all that is read, has only the order.
    pub oldest_age_seconds: f64,
}

pub async fn depths(conn: &mut PgConnection) -> sqlx::Result<Vec<Depth>> {
    sqlx::query_as!(
        Depth,
        r#"select queue, coalesce(sum(waiting) filter (where t.id is null), 0)::bigint as "waiting!",
                  coalesce(greatest(extract(epoch from queue.now() - min(oldest_at) filter (where t.id is null)), 0), 0)::float8
                    as "oldest_age_seconds!"
           from queue_depths d left join tenants t on t.id = d.tenant_id and not t.active
           group by queue"#,
    )
    .fetch_all(conn)
    .await
}

/// Exports the fleet's gauges. A queue that was known once is 0 from then on, never absent, so that
/// an autoscaler can scale from zero.
pub fn export(known: &mut BTreeSet<String>, depths: &[Depth]) {
    known.extend(depths.iter().map(|depth| depth.queue.clone()));
    for queue in known.iter() {
        let depth = depths.iter().find(|depth| depth.queue == *queue);
        let (waiting, age) = depth.map_or((0, 0.0), |depth| (depth.waiting, depth.oldest_age_seconds));
        metrics::gauge!("streamspace_queue_depth", "queue" => queue.clone()).set(waiting as f64);
        metrics::gauge!("streamspace_oldest_age_seconds", "queue" => queue.clone()).set(age);
    }
}

/// The duty of counting.
pub const DUTY: &str = "queue_depths";

/// Takes or renews a duty for a time; answers whether this process has it. Once a clock jumped back a
/// holder that died would keep its duty for as long as the jump, so what reaches too far ahead is
/// taken too.
pub async fn hold(conn: &mut PgConnection, duty: &str, boot: BootId, lease: Duration) -> sqlx::Result<bool> {
    let held = sqlx::query_scalar!(
        r#"insert into leases as l (name, boot_id, until) values ($1, $2, queue.now() + make_interval(secs => $3))
           on conflict (name) do update set boot_id = excluded.boot_id, until = excluded.until
           where l.boot_id = excluded.boot_id or l.until < queue.now() or l.until > queue.now() + make_interval(secs => $3 * 2)
           returning 1 as "held!""#,
        duty,
        boot.0,
        lease.as_secs_f64(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(held.is_some())
}

/// Gives a duty up, so that another process need not wait for it to run out.
pub async fn release(conn: &mut PgConnection, duty: &str, boot: BootId) -> sqlx::Result<()> {
    sqlx::query!("delete from leases where name = $1 and boot_id = $2", duty, boot.0)
        .execute(conn)
        .await
        .map(drop)
}
