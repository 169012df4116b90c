//! The rows of new jobs, in as plain a statement as they allow.

use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;
use sqlx::types::Json;
use streamspace_common::JobId;
use uuid::Uuid;

use super::{EnqueueError, Options, Policy, Prepared};
use crate::{model::State, notice::Lane, tx::Tx};

fn sql_time(at: Timestamp) -> jiff_sqlx::Timestamp {
    at.into()
}

/// A new row, which is of version 1 and in the lane of its queue.
struct Inserted {
    id: JobId,
    state: State,
    order_at: jiff_sqlx::Timestamp,
    run_at: jiff_sqlx::Timestamp,
    blocked_on: Option<String>,
}

pub(super) async fn insert(
    tx: &mut Tx,
    policy: &Policy,
    jobs: Vec<Prepared>,
    options: &Options,
) -> Result<(), EnqueueError> {
    let tenant = tx.tenant();
    let creator = options.creator.unwrap_or(tx.actor().by);
    let (creator_type, creator_id) = creator.columns();
    let user = options.user.or(tx.actor().user).map(|user| user.0);
    let request = tx.request().clone();
    let release = tx.queue().release().0;
    let queue = options.queue.as_deref().unwrap_or(policy.queue);
    let unique_mode =
        jobs.iter().find_map(|job| job.unique.as_ref()).map_or(0, |unique| unique.while_ as i16);
    let unique_key = jobs.iter().find_map(|job| job.unique.as_ref()).map(|unique| unique.key.clone());

    let ids: Vec<Uuid> = jobs.iter().map(|job| job.id.0).collect();
    let keyed = jobs.iter().any(|job| job.slots.is_some());
    let (mut slot_keys, mut slot_limits) = (Vec::new(), Vec::new());
    let mut args = Vec::with_capacity(jobs.len());
    for job in jobs {
        if keyed {
            let (keys, limits) = job.slots.unzip();
            slot_keys.push(keys);
            slot_limits.push(limits);
        }
        args.push(job.args);
    }
    let delay = options.delay.map(|delay| delay.as_millis() as i64);
    let run_at = options.run_at.map(jiff_sqlx::Timestamp::from);

    let key = tx.actor().key.map(|key| key.0);

    let inserted = if keyed {
        sqlx::query_as!(
                Inserted,
                r#"insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms, max_attempts,
                             state, version, priority, unique_mode, kind, queue, lane, unique_key,
                             slot_keys, slot_limits, blocked_on,
                             parent_id, user_id, key_id, creator_type, creator_id, request_id, traceparent, args)
           select u.id, $1, greatest(at.run_at, at.now), greatest(at.run_at, at.now) - $7::smallint * interval '1 minute',
                  at.now, $8, $9, $10,
                  (case when at.run_at > at.now then 'scheduled' when full_.key is not null then 'blocked'
                        else 'queued' end)::job_state,
                  $11, $7, $12, $13, $14, $14, $15,
                  string_to_array(u.slot_keys, E'\x1f'), string_to_array(u.slot_limits, E'\x1f')::smallint[],
                  case when at.run_at > at.now then null else full_.key end,
                  $16, $17, $23, $18, $19, $20, $21, u.args
           from (select now, coalesce($5::timestamptz, now + coalesce($6::bigint, 0) * interval '1 ms') as run_at
                 from (select queue.now() as now) n) at,
                unnest($2::uuid[], $3::jsonb[], $4::text[], $22::text[]) as u(id, args, slot_keys, slot_limits)
                left join lateral (
                  select s.key from unnest(string_to_array(u.slot_keys, E'\x1f'),
                                           string_to_array(u.slot_limits, E'\x1f')::smallint[]) as s(key, n)
                  where (select count(*) from job_slots x where x.key = s.key) >= s.n
                  limit 1) full_ on true
           returning id as "id: JobId", state as "state: State", order_at, run_at, blocked_on"#,
                tenant.0,
                &ids,
                &args as &[Json<Box<RawValue>>],
                &slot_keys as &[Option<String>],
                run_at as Option<jiff_sqlx::Timestamp>,
                delay,
                options.priority.clamp(-100, 100),
                release,
                policy.timeout.as_millis() as i64,
                options.max_attempts.unwrap_or(policy.attempts).max(1),
                policy.version,
                unique_mode,
                policy.kind,
                queue,
                unique_key,
                options.parent.map(|parent| parent.0),
                user,
                creator_type,
                creator_id,
                request.id,
                request.traceparent,
                &slot_limits as &[Option<String>],
                key,
            )
            .fetch_all(tx.conn().await?)
            .await?
    } else if ids.len() == 1 && options.run_at.is_none() && options.delay.is_none() {
        // The plan for one row is made once and kept; from an array the planner makes one anew each
        // time, which costs as much as the insert.
        let order_at = sqlx::query_scalar!(
                r#"insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms, max_attempts,
                                   state, version, priority, unique_mode, kind, queue, lane, unique_key,
                                   parent_id, user_id, key_id, creator_type, creator_id, request_id, traceparent, args)
                   values ($2, $1, queue.now(), queue.now() - $7::smallint * interval '1 minute', queue.now(), $4, $5, $6,
                           'queued', $8, $7, $9, $10, $11, $11, $12, $13, $14, $15, $16, $17, $18, $19, $3)
                   returning order_at"#,
                tenant.0,
                ids[0],
                &args[0] as &Json<Box<RawValue>>,
                release,
                policy.timeout.as_millis() as i64,
                options.max_attempts.unwrap_or(policy.attempts).max(1),
                options.priority.clamp(-100, 100),
                policy.version,
                unique_mode,
                policy.kind,
                queue,
                unique_key,
                options.parent.map(|parent| parent.0),
                user,
                key,
                creator_type,
                creator_id,
                request.id,
                request.traceparent,
            )
            .fetch_one(tx.conn().await?)
            .await?;
        vec![Inserted {
            id: JobId(ids[0]),
            state: State::Queued,
            order_at,
            run_at: order_at,
            blocked_on: None,
        }]
    } else {
        // Those that need no slot have one fate, which need not be told of each.
        let now = tx.now().await?;
        let soonest = options
            .run_at
            .unwrap_or_else(|| now.saturating_add(options.delay.unwrap_or_default()).unwrap_or(now));
        let run_at = soonest.max(now);
        let ahead = SignedDuration::from_mins(i64::from(options.priority.clamp(-100, 100)));
        let order_at = run_at.checked_sub(ahead).unwrap_or(run_at);
        let state = if run_at > now { State::Scheduled } else { State::Queued };
        sqlx::query!(
                "insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms, max_attempts,
                                   state, version, priority, unique_mode, kind, queue, lane, unique_key,
                                   parent_id, user_id, key_id, creator_type, creator_id, request_id, traceparent, args)
                 select u.id, $1, $4, $5, $6, $7, $8, $9, $10::text::job_state, $11, $12, $13, $14, $15, $15, $16,
                        $17, $18, $19, $20, $21, $22, $23, u.args
                 from unnest($2::uuid[], $3::jsonb[]) as u(id, args)",
                tenant.0,
                &ids,
                &args as &[Json<Box<RawValue>>],
                sql_time(run_at) as jiff_sqlx::Timestamp,
                sql_time(order_at) as jiff_sqlx::Timestamp,
                sql_time(now) as jiff_sqlx::Timestamp,
                release,
                policy.timeout.as_millis() as i64,
                options.max_attempts.unwrap_or(policy.attempts).max(1),
                state.as_str(),
                policy.version,
                options.priority.clamp(-100, 100),
                unique_mode,
                policy.kind,
                queue,
                unique_key,
                options.parent.map(|parent| parent.0),
                user,
                key,
                creator_type,
                creator_id,
                request.id,
                request.traceparent,
            )
            .execute(tx.conn().await?)
            .await?;
        let (order_at, run_at) = (sql_time(order_at), sql_time(run_at));
        let of = |id: &Uuid| Inserted { id: JobId(*id), state, order_at, run_at, blocked_on: None };
        ids.iter().map(of).collect()
    };

    let notices = tx.notices();
    for job in inserted {
        match (job.state, job.blocked_on) {
            (State::Blocked, Some(key)) => {
                // Its holder may have ended while this transaction was open: look after the commit.
                notices.unblock.insert(key);
            }
            (State::Queued, _) => {
                notices.claimable(Lane { name: queue.to_owned(), tenant }, job.order_at.to_jiff());
            }
            _ => notices.due(job.run_at.to_jiff()),
        }
        notices.changed(job.id, 1);
    }
    Ok(())
}
