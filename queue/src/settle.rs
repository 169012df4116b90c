//! The end of an attempt, in SQL. Every statement names the fence, and every one raises it: a token
//! is good for exactly one end, and a stale one changes nothing.

use serde_json::Value;
use sqlx::PgConnection;
use streamspace_common::{JobId, TenantId};
use uuid::Uuid;

use crate::{
    model::State,
    notice::{Lane, Notices},
};

/// A success.
pub(crate) struct Finish {
    pub job: JobId,
    pub fence: i64,
    /// From the claim to the handler's start.
    pub start_us: i64,
    pub result: Option<Value>,
    pub warning: Option<String>,
    pub progress: Option<Value>,
}

#[derive(Default)]
pub(crate) struct Settled {
    /// How many were ours to settle; the others were stale.
    pub jobs: usize,
    /// The kinds of those that succeeded, to be counted after the commit.
    pub succeeded: Vec<String>,
    pub notices: Notices,
}

/// Completes jobs and releases their slots and keys. A unique key that somebody has locked is being
/// taken over: it is left to them.
///
/// Found by the primary key and the fence alone: with a bare `state = 'running'` the planner may walk
/// the wrong partial index.
pub(crate) async fn finish(conn: &mut PgConnection, jobs: &[Finish]) -> sqlx::Result<Settled> {
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.job.0).collect();
    let fences: Vec<i64> = jobs.iter().map(|job| job.fence).collect();
    let start_us: Vec<i64> = jobs.iter().map(|job| job.start_us).collect();
    let results: Vec<Option<&Value>> = jobs.iter().map(|job| job.result.as_ref()).collect();
    let warnings: Vec<Option<&str>> = jobs.iter().map(|job| job.warning.as_deref()).collect();
    let progress: Vec<Option<&Value>> = jobs.iter().map(|job| job.progress.as_ref()).collect();
    let rows = sqlx::query!(
        r#"with done as (
             update jobs j set state = 'succeeded', fence = j.fence + 1, row_version = j.row_version + 1,
                    boot_id = null, park_key = null, finished_at = queue.now(),
                    started_at = j.claimed_at + u.start_us * interval '1 us',
                    cancel_stopped_at = case when j.cancel_requested_at is not null then queue.now() end,
                    result = u.result, warning = u.warning, progress = coalesce(u.progress, j.progress)
             from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::jsonb[], $5::text[], $6::jsonb[])
                  as u(id, fence, start_us, result, warning, progress)
             where j.id = u.id and j.fence = u.fence
             returning j.id, u.fence, j.kind, j.row_version, j.slot_keys is not null as keyed, j.unique_mode),
           slots as (
             delete from job_slots s using done where done.keyed and s.job_id = done.id and s.fence = done.fence
             returning s.key),
           keys as (
             delete from job_keys where (tenant_id, kind, key) in (
               select k.tenant_id, k.kind, k.key from done join job_keys k on k.job_id = done.id
               where done.unique_mode in (1, 2) for update of k skip locked))
           select id as "id: JobId", kind, row_version, null as "key" from done
           union all select null, null, null, key from slots"#,
        &ids,
        &fences,
        &start_us,
        &results as &[Option<&Value>],
        &warnings as &[Option<&str>],
        &progress as &[Option<&Value>],
    )
    .fetch_all(conn)
    .await?;
    let mut settled = Settled::default();
    for row in rows {
        // A row is a job or a freed key.
        settled.notices.unblock.extend(row.key);
        if let Some((id, version)) = row.id.zip(row.row_version) {
            settled.jobs += 1;
            settled.notices.changed(id, version);
            settled.succeeded.extend(row.kind);
        }
    }
    Ok(settled)
}

/// The kinds of those that have succeeded by these very attempts: an end of one is stale when it was written
/// before, and only the answer was lost.
pub(crate) async fn already_succeeded(
    conn: &mut PgConnection,
    attempts: impl Iterator<Item = (JobId, i64)>,
) -> sqlx::Result<Vec<String>> {
    let (ids, fences): (Vec<Uuid>, Vec<i64>) = attempts.map(|(job, fence)| (job.0, fence)).unzip();
    sqlx::query_scalar!(
        r#"select j.kind from unnest($1::uuid[], $2::bigint[]) as u(id, fence) join jobs j on j.id = u.id
           where j.fence = u.fence + 1 and j.state = 'succeeded'"#,
        &ids,
        &fences,
    )
    .fetch_all(conn)
    .await
}

/// Any other end.
#[derive(Debug)]
pub(crate) struct End {
    pub job: JobId,
    pub fence: i64,
    pub start_us: i64,
    pub verdict: Verdict,
    /// `{attempt, kind, message}` of the error history; the time is the database's.
    pub error: Option<Value>,
    pub warning: Option<String>,
    pub progress: Option<Value>,
    /// The handler still runs, so its slots stay taken.
    pub keep_slots: bool,
    /// As an end of an attempt; what only goes back was none.
    pub counted: bool,
}

impl End {
    /// Back into its lane, as if it had never been claimed.
    pub(crate) fn release(job: JobId, fence: i64) -> Self {
        Self {
            job,
            fence,
            start_us: 0,
            verdict: Verdict::Release,
            error: None,
            warning: None,
            progress: None,
            keep_slots: false,
            counted: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Failed,
    Cancelled,
    Retry {
        after_ms: i64,
    },
    Snooze {
        after_ms: i64,
    },
    /// A retry that costs no attempt unless there were many; each waits longer.
    Outage {
        after_ms: i64,
    },
    /// Back into its lane, as if it had never been claimed.
    Release,
    /// No kind of this name here: back, into the lane of workers that know it.
    Unknown,
}

impl Verdict {
    fn code(self) -> (i16, i64) {
        match self {
            Self::Failed => (1, 0),
            Self::Cancelled => (2, 0),
            Self::Retry { after_ms } => (3, after_ms),
            Self::Snooze { after_ms } => (4, after_ms),
            Self::Release => (5, 0),
            Self::Unknown => (6, 0),
            Self::Outage { after_ms } => (7, after_ms),
        }
    }
}

/// Ends attempts in any way but success. A job whose cancel was requested ends as cancelled,
/// whatever its handler wished for next.
///
/// One that was claimed from the lane of a kind goes back into its queue's: those that know the kind
/// may be gone by then, and only who claims it finds out.
///
/// One that has run and is handed back could not be claimed while it ran: it waits from now on, at its old
/// place.
///
/// They are counted here, where it is known what became of the job.
pub(crate) async fn end(conn: &mut PgConnection, jobs: &[End]) -> sqlx::Result<Settled> {
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.job.0).collect();
    let fences: Vec<i64> = jobs.iter().map(|job| job.fence).collect();
    let (codes, waits): (Vec<i16>, Vec<i64>) = jobs.iter().map(|job| job.verdict.code()).unzip();
    let start_us: Vec<i64> = jobs.iter().map(|job| job.start_us).collect();
    let errors: Vec<Option<&Value>> = jobs.iter().map(|job| job.error.as_ref()).collect();
    let warnings: Vec<Option<&str>> = jobs.iter().map(|job| job.warning.as_deref()).collect();
    let progress: Vec<Option<&Value>> = jobs.iter().map(|job| job.progress.as_ref()).collect();
    let keep: Vec<bool> = jobs.iter().map(|job| job.keep_slots).collect();
    let counted: Vec<bool> = jobs.iter().map(|job| job.counted).collect();
    let rows = sqlx::query!(
        r#"with done as (
             update jobs j set
                    state = (case queue.verdict(j, u.code) when 1 then 'failed' when 2 then 'cancelled'
                                  when 3 then 'retrying' when 7 then 'retrying' when 4 then 'snoozed' else 'queued' end)::job_state,
                    attempt = j.attempt - (queue.verdict(j, u.code) in (4, 5, 6, 7))::int,
                    fence = j.fence + 1, row_version = j.row_version + 1, boot_id = null,
                    park_key = case when queue.verdict(j, u.code) in (5, 6) then j.park_key end,
                    run_at = case when u.code in (3, 4) then queue.now() + u.wait_ms * interval '1 ms'
                                  when u.code = 7 then queue.now() + u.wait_ms * (1 + queue.outages(j.errors)) * interval '1 ms'
                                  when queue.verdict(j, u.code) = 5 and u.counted then queue.now()
                                  else j.run_at end,
                    lane = case when queue.verdict(j, u.code) = 6 then j.queue || '/' || j.kind || '@' || j.version else j.queue end,
                    unknown_since = case when queue.verdict(j, u.code) = 6 then coalesce(j.unknown_since, queue.now()) end,
                    started_at = j.claimed_at + u.start_us * interval '1 us',
                    finished_at = case when queue.verdict(j, u.code) in (1, 2) then queue.now() end,
                    cancel_stopped_at = case when j.cancel_requested_at is not null then queue.now() end,
                    warning = coalesce(u.warning, j.warning), progress = coalesce(u.progress, j.progress),
                    errors = case when u.error is null then j.errors
                                  else queue.append_error(j.errors, u.error) end
             from unnest($1::uuid[], $2::bigint[], $3::smallint[], $4::bigint[], $5::bigint[],
                         $6::jsonb[], $7::text[], $8::jsonb[], $9::bool[], $10::bool[])
                  as u(id, fence, code, wait_ms, start_us, error, warning, progress, keep_slots, counted)
             where j.id = u.id and j.fence = u.fence
             returning j.id, u.fence, j.tenant_id, j.state, j.lane, j.order_at, j.run_at, j.row_version,
                       case when u.counted then j.kind end as kind, j.slot_keys is not null and not u.keep_slots as keyed,
                       j.unique_mode in (1, 2) and j.state in ('failed', 'cancelled') as unique_over),
           slots as (
             delete from job_slots s using done where done.keyed and s.job_id = done.id and s.fence = done.fence
             returning s.key),
           keys as (
             delete from job_keys where (tenant_id, kind, key) in (
               select k.tenant_id, k.kind, k.key from done join job_keys k on k.job_id = done.id
               where done.unique_over for update of k skip locked))
           select id as "id: JobId", tenant_id as "tenant: TenantId", state as "state: State", lane, order_at, run_at,
                  row_version, kind, null as "key" from done
           union all select null, null, null, null, null, null, null, null, key from slots"#,
        &ids,
        &fences,
        &codes,
        &waits,
        &start_us,
        &errors as &[Option<&Value>],
        &warnings as &[Option<&str>],
        &progress as &[Option<&Value>],
        &keep,
        &counted,
    )
    .fetch_all(conn)
    .await?;
    let mut settled = Settled::default();
    for row in rows {
        if let Some(key) = row.key {
            settled.notices.unblock.insert(key);
            continue;
        }
        let (Some(id), Some(tenant), Some(state)) = (row.id, row.tenant, row.state) else { continue };
        settled.jobs += 1;
        settled.notices.changed(id, row.row_version.unwrap_or_default());
        if let Some(kind) = row.kind {
            let outcome = match state {
                State::Failed => "failed",
                State::Cancelled => "cancelled",
                State::Retrying => "retried",
                State::Snoozed => "snoozed",
                _ => "released",
            };
            metrics::counter!("streamspace_jobs_total", "kind" => kind, "outcome" => outcome).increment(1);
        }
        match (state, row.lane, row.order_at, row.run_at) {
            (State::Queued, Some(name), Some(at), _) => {
                settled.notices.claimable(Lane { name, tenant }, at.to_jiff());
            }
            (State::Retrying | State::Snoozed, _, _, Some(at)) => settled.notices.due(at.to_jiff()),
            _ => {}
        }
    }
    Ok(settled)
}

/// Writes progress of running jobs, with the fence.
pub(crate) async fn write_progress(
    conn: &mut PgConnection,
    progress: &[(JobId, i64, Value)],
) -> sqlx::Result<Notices> {
    let ids: Vec<Uuid> = progress.iter().map(|(job, ..)| job.0).collect();
    let fences: Vec<i64> = progress.iter().map(|(_, fence, _)| *fence).collect();
    let values: Vec<&Value> = progress.iter().map(|(.., value)| value).collect();
    let rows = sqlx::query!(
        r#"update jobs j set progress = u.progress, row_version = j.row_version + 1
           from unnest($1::uuid[], $2::bigint[], $3::jsonb[]) as u(id, fence, progress)
           where j.id = u.id and j.fence = u.fence
           returning j.id as "id: JobId", j.row_version"#,
        &ids,
        &fences,
        &values as &[&Value],
    )
    .fetch_all(conn)
    .await?;
    let mut notices = Notices::default();
    for row in rows {
        notices.changed(row.id, row.row_version);
    }
    Ok(notices)
}

pub(crate) async fn set_checkpoint(
    conn: &mut PgConnection,
    job: JobId,
    fence: i64,
    value: &Value,
) -> sqlx::Result<bool> {
    let updated =
        sqlx::query!("update jobs set checkpoint = $3 where id = $1 and fence = $2", job.0, fence, value)
            .execute(conn)
            .await?;
    Ok(updated.rows_affected() == 1)
}

pub(crate) async fn find_step(
    conn: &mut PgConnection,
    job: JobId,
    step: &str,
) -> sqlx::Result<Option<Value>> {
    let found =
        sqlx::query_scalar!("select value from job_steps where job_id = $1 and step = $2", job.0, step)
            .fetch_optional(conn)
            .await?;
    Ok(found.map(|value| value.unwrap_or(Value::Null)))
}

/// Marks a step as done if the fence holds, locking the job's row until the commit.
pub(crate) async fn mark_step(
    conn: &mut PgConnection,
    job: JobId,
    fence: i64,
    step: &str,
    value: &Value,
) -> sqlx::Result<bool> {
    let marked = sqlx::query!(
        "with held as (select id from jobs where id = $1 and fence = $2 for no key update)
         insert into job_steps (job_id, step, value, at) select id, $3, $4, queue.now() from held",
        job.0,
        fence,
        step,
        value,
    )
    .execute(conn)
    .await?;
    Ok(marked.rows_affected() == 1)
}

/// Records when running jobs were told to stop.
pub(crate) async fn mark_cancel_delivered(
    conn: &mut PgConnection,
    jobs: &[(JobId, i64)],
) -> sqlx::Result<Notices> {
    let ids: Vec<Uuid> = jobs.iter().map(|(job, _)| job.0).collect();
    let fences: Vec<i64> = jobs.iter().map(|(_, fence)| *fence).collect();
    let rows = sqlx::query!(
        r#"update jobs j set cancel_delivered_at = queue.now(), row_version = j.row_version + 1
           from unnest($1::uuid[], $2::bigint[]) as u(id, fence)
           where j.id = u.id and j.fence = u.fence and j.cancel_delivered_at is null
           returning j.id as "id: JobId", j.row_version"#,
        &ids,
        &fences,
    )
    .fetch_all(conn)
    .await?;
    let mut notices = Notices::default();
    for row in rows {
        notices.changed(row.id, row.row_version);
    }
    Ok(notices)
}
