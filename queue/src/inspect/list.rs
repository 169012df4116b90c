//! Pages of jobs, newest first. The cursor is the id of the last row that was *looked at*: a page
//! looks at no more than [`SCANNED`] rows, so a filter that matches little gives short pages with a
//! cursor, never a slow one.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::{JobId, ScheduleId, TenantId, UserId};
use uuid::Uuid;

use super::{JobRow, Scope, read_jobs};
use crate::model::State;

/// Which of the reader's jobs. Everything that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Filter {
    /// Any of these; `queued` includes what waits for a concurrency key. None: all.
    pub states: Vec<State>,
    pub kind: Option<String>,
    /// None of these. Whoever asks knows what they may not touch; that stands in no stored filter.
    #[serde(skip)]
    pub without_kinds: Vec<String>,
    pub queue: Option<String>,
    pub parent: Option<JobId>,
    pub schedule: Option<ScheduleId>,
    pub user: Option<UserId>,
    /// Made at this time or later.
    pub created_from: Option<Timestamp>,
    /// Made before this time.
    pub created_before: Option<Timestamp>,
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn stored_states(&self) -> Option<Vec<String>> {
        if self.states.is_empty() {
            return None;
        }
        let stored = State::ALL.into_iter().filter(|state| self.states.contains(&state.public()));
        Some(stored.map(|state| state.as_str().to_owned()).collect())
    }

    /// Ids are made by the clock of whoever enqueues, `created_at` by the database's: a day lies
    /// between them at most. Bounds of ids only keep a scan short; the times decide.
    pub(crate) fn lowest_id(&self) -> Uuid {
        self.created_from.map_or(Uuid::nil(), |from| id_at(from.saturating_sub(SLACK).unwrap_or(from)))
    }

    pub(crate) fn highest_id(&self) -> Uuid {
        self.created_before
            .map_or(Uuid::max(), |before| id_at(before.saturating_add(SLACK).unwrap_or(before)))
    }
}

const SLACK: Duration = Duration::from_secs(24 * 3600);
/// Rows that one page looks at, at most.
const SCANNED: i64 = 10_000;

/// The lowest id of a moment: a UUIDv7 starts with its milliseconds.
pub(crate) fn id_at(at: Timestamp) -> Uuid {
    let ms = u128::try_from(at.as_millisecond().max(0)).unwrap_or(0);
    Uuid::from_u128(ms << 80)
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub jobs: Vec<JobRow>,
    /// Where the next page begins; none follows without it.
    pub next: Option<JobId>,
}

/// A page that begins after the cursor. It may be short, even empty, and have a next one.
pub async fn list(
    conn: &mut PgConnection,
    scope: Scope,
    filter: &Filter,
    after: Option<JobId>,
    limit: u32,
) -> sqlx::Result<Page> {
    let (ids, next) = page_of_ids(conn, scope, filter, after, limit).await?;
    if ids.is_empty() {
        return Ok(Page { jobs: Vec::new(), next });
    }
    let jobs = read_jobs!("select unnest($1::uuid[])", &ids).fetch_all(conn).await?;
    Ok(Page { jobs: jobs.into_iter().map(JobRow::from).collect(), next })
}

/// The newest jobs that were made a short while ago, with their versions: for who watches whole
/// tenants, all of them without a list. At most 1,000; more than that only a list shows.
pub async fn made_since(
    conn: &mut PgConnection,
    tenants: Option<&[TenantId]>,
    ago: Duration,
) -> sqlx::Result<Vec<(JobId, i64)>> {
    let now = sqlx::query_scalar!(r#"select queue.now() as "now!""#).fetch_one(&mut *conn).await?.to_jiff();
    let low = id_at(now.checked_sub(ago).unwrap_or(Timestamp::MIN));
    let Some(tenants) = tenants else {
        return sqlx::query!(
            r#"select id as "id: JobId", row_version from jobs where id > $1 order by id desc limit 1000"#,
            low,
        )
        .map(|row| (row.id, row.row_version))
        .fetch_all(conn)
        .await;
    };
    let tenants: Vec<Uuid> = tenants.iter().map(|tenant| tenant.0).collect();
    sqlx::query!(
        r#"select id as "id!: JobId", row_version as "row_version!"
           from unnest($1::uuid[]) as t(tenant) cross join lateral (
             select id, row_version from jobs where tenant_id = t.tenant and id > $2 order by id desc limit 1000) j
           order by id desc limit 1000"#,
        &tenants,
        low,
    )
    .map(|row| (row.id, row.row_version))
    .fetch_all(conn)
    .await
}

/// The ids of such a page, newest first, and the cursor after them.
pub(crate) async fn page_of_ids(
    conn: &mut PgConnection,
    scope: Scope,
    filter: &Filter,
    after: Option<JobId>,
    limit: u32,
) -> sqlx::Result<(Vec<Uuid>, Option<JobId>)> {
    if scope.user().is_some_and(|own| filter.user.is_some_and(|user| user != own)) {
        return Ok((Vec::new(), None));
    }
    let before = after.map_or(Uuid::max(), |after| after.0).min(filter.highest_id());
    let limit = i64::from(limit.max(1));
    let floor = floor(conn, scope, filter, before).await?;
    let ids = matching(conn, scope, filter, before, floor.unwrap_or(filter.lowest_id()), limit).await?;
    let next = match ids.last() {
        Some(last) if ids.len() as i64 == limit => Some(JobId(*last)),
        _ => floor.map(JobId),
    };
    Ok((ids, next))
}

/// The last id that a page looks at; `None` when it may look at all that is left. It is
/// asked for before the rows, so what is deleted in between can't make a page skip any.
///
/// The statements here differ in nothing but the index that serves them, which all of them read
/// without the table. Each compares whole index keys and orders by them: with `tenant_id = $1 and
/// id < $2 order by id` the planner may walk the primary key and throw away the rows of all others.
async fn floor(
    conn: &mut PgConnection,
    scope: Scope,
    filter: &Filter,
    before: Uuid,
) -> sqlx::Result<Option<Uuid>> {
    let low = filter.lowest_id();
    let user = scope.user().or(filter.user);
    match (scope.tenant(), user) {
        _ if filter.parent.is_some() => Ok(None),
        (Some(tenant), None) if filter.states == [State::Failed] => {
            sqlx::query_scalar!(
                "select id from jobs where (tenant_id, id) < ($1::uuid, $2) and (tenant_id, id) > ($1, $3)
                   and state = 'failed'
                 order by tenant_id desc, id desc offset $4 limit 1",
                tenant.0,
                before,
                low,
                SCANNED - 1,
            )
            .fetch_optional(conn)
            .await
        }
        (Some(tenant), Some(user)) => {
            sqlx::query_scalar!(
                "select id from jobs
                 where (tenant_id, user_id, id) < ($1::uuid, $2::uuid, $3) and (tenant_id, user_id, id) > ($1, $2, $4)
                   and user_id is not null
                 order by tenant_id desc, user_id desc, id desc offset $5 limit 1",
                tenant.0,
                user.0,
                before,
                low,
                SCANNED - 1,
            )
            .fetch_optional(conn)
            .await
        }
        (Some(tenant), None) => {
            sqlx::query_scalar!(
                "select id from jobs where (tenant_id, id) < ($1::uuid, $2) and (tenant_id, id) > ($1, $3)
                 order by tenant_id desc, id desc offset $4 limit 1",
                tenant.0,
                before,
                low,
                SCANNED - 1,
            )
            .fetch_optional(conn)
            .await
        }
        (None, _) => {
            sqlx::query_scalar!(
                "select id from jobs where id < $1 and id > $2 order by id desc offset $3 limit 1",
                before,
                low,
                SCANNED - 1,
            )
            .fetch_optional(conn)
            .await
        }
    }
}

/// The ids that match below the one and down to the other. A probe of the primary key for each entry
/// of the index, so that the planner can't weigh a walk over the whole table against a filter of which
/// it knows too little.
async fn matching(
    conn: &mut PgConnection,
    scope: Scope,
    filter: &Filter,
    before: Uuid,
    floor: Uuid,
    limit: i64,
) -> sqlx::Result<Vec<Uuid>> {
    let states = filter.stored_states();
    let (tenant, _, creator) = scope.columns();
    let user = scope.user().or(filter.user).map(|user| user.0);
    let (from, until) = (filter.created_from.map(sql_time), filter.created_before.map(sql_time));
    let schedule = filter.schedule.map(|schedule| schedule.0);
    let parent = filter.parent.map(|parent| parent.0);
    macro_rules! select {
        ($index:tt, $order:tt $(, $key:expr)*) => {
            sqlx::query_scalar!(
                "select j.id from (select * from jobs where " + $index + ") c
                 cross join lateral (
                   select id from jobs
                   where id = c.id and ($3::text[] is null or state::text = any($3))
                     and ($4::text is null or kind = $4) and ($5::text is null or queue = $5)
                     and ($6::uuid is null or user_id = $6) and ($7::uuid is null or creator_id = $7)
                     and ($8::uuid is null or creator_type = 'schedule' and creator_id = $8)
                     and ($9::timestamptz is null or created_at >= $9)
                     and ($10::timestamptz is null or created_at < $10) and ($11::uuid is null or tenant_id = $11)
                     and kind <> all($13::text[])
                   offset 0) j
                 order by " + $order + " limit $12",
                before,
                floor,
                states.as_deref(),
                filter.kind,
                filter.queue,
                user,
                creator,
                schedule,
                from as Option<jiff_sqlx::Timestamp>,
                until as Option<jiff_sqlx::Timestamp>,
                tenant,
                limit,
                &filter.without_kinds,
                $($key),*
            )
            .fetch_all(conn)
            .await
        };
    }
    match (tenant, user) {
        _ if parent.is_some() => select!(
            "(parent_id, id) < ($14::uuid, $1) and (parent_id, id) >= ($14, $2) and parent_id is not null",
            "c.parent_id desc, c.id desc",
            parent
        ),
        (Some(_), None) if filter.states == [State::Failed] => select!(
            "(tenant_id, id) < ($14::uuid, $1) and (tenant_id, id) >= ($14, $2) and state = 'failed'",
            "c.tenant_id desc, c.id desc",
            tenant
        ),
        (Some(_), Some(_)) => select!(
            "(tenant_id, user_id, id) < ($14::uuid, $15::uuid, $1) and (tenant_id, user_id, id) >= ($14, $15, $2)
             and user_id is not null",
            "c.tenant_id desc, c.user_id desc, c.id desc",
            tenant,
            user
        ),
        (Some(_), None) => select!(
            "(tenant_id, id) < ($14::uuid, $1) and (tenant_id, id) >= ($14, $2)",
            "c.tenant_id desc, c.id desc",
            tenant
        ),
        (None, _) => select!("id < $1 and id >= $2", "c.id desc"),
    }
}

/// No job is older than the epoch, and PostgreSQL's years begin later than ours.
fn sql_time(at: Timestamp) -> jiff_sqlx::Timestamp {
    at.max(Timestamp::UNIX_EPOCH).into()
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    #[test]
    fn ids_of_a_moment_lie_behind_its_lowest_id() {
        let before = Timestamp::now();
        let id = Uuid::now_v7();
        assert!(id_at(before) <= id);
        assert!(id < id_at(before + 1.minute()));
    }

    #[test]
    fn the_ends_of_time_are_times_too() {
        let filter = Filter {
            created_from: Some(Timestamp::MIN),
            created_before: Some(Timestamp::MAX),
            ..Filter::default()
        };
        assert_eq!(filter.lowest_id(), Uuid::nil());
        assert!(filter.highest_id() > id_at(Timestamp::now()));
    }

    #[test]
    fn queued_includes_what_waits_for_a_key() {
        let filter = Filter { states: vec![State::Queued], ..Filter::default() };
        assert_eq!(filter.stored_states(), Some(vec!["queued".to_owned(), "blocked".to_owned()]));
        assert_eq!(Filter::default().stored_states(), None);
    }
}
