//! The processes that run jobs, as they last said of themselves.

use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::{BootId, JobId};

use crate::{inspect::Scope, tx::Tx};

#[derive(Clone, Debug, PartialEq)]
pub struct WorkerRow {
    pub id: BootId,
    pub host: String,
    pub pid: i32,
    pub version: String,
    /// All when `None`.
    pub queues: Option<Vec<String>>,
    pub concurrency: i32,
    /// Jobs of the reader's scope that it runs.
    pub running: i64,
    /// Handlers that ignore that they were told to stop.
    pub abandoned: i32,
    pub status: Status,
    pub started_at: Timestamp,
    pub beat_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Live,
    /// Takes no more jobs, and ends when those that run have ended.
    Draining,
    /// Has missed beats; others take over its jobs when its lease runs out.
    Silent,
}

/// Every worker whose lease nobody has taken away, oldest first. There are as many as there are
/// processes, so it is one page.
pub async fn list(conn: &mut PgConnection, scope: Scope) -> sqlx::Result<Vec<WorkerRow>> {
    read(conn, scope, None).await
}

pub async fn get(conn: &mut PgConnection, scope: Scope, id: BootId) -> sqlx::Result<Option<WorkerRow>> {
    Ok(read(conn, scope, Some(id)).await?.pop())
}

/// Silent for longer than any beat takes, by the database's clock: this informs, it decides nothing.
const SILENT_AFTER_SECONDS: f64 = 6.0;
const MOST: i64 = 1000;

async fn read(conn: &mut PgConnection, scope: Scope, only: Option<BootId>) -> sqlx::Result<Vec<WorkerRow>> {
    let (tenant, user, creator) = scope.columns();
    let rows = sqlx::query!(
        r#"select w.boot_id as "id: BootId", w.host, w.pid, w.version, w.queues, w.concurrency, w.abandoned, w.draining,
                  w.started_at, w.beat_at, extract(epoch from queue.now() - w.beat_at)::float8 as "silence!",
                  (select count(*) from jobs j where j.state = 'running' and j.boot_id = w.boot_id
                     and ($2::uuid is null or j.tenant_id = $2) and ($3::uuid is null or j.user_id = $3)
                     and ($4::uuid is null or j.creator_id = $4)) as "running!"
           from workers w where $1::uuid is null or w.boot_id = $1 order by w.started_at, w.boot_id limit $5"#,
        only.map(|id| id.0),
        tenant,
        user,
        creator,
        MOST,
    )
    .fetch_all(conn)
    .await?;
    let of = rows.into_iter().map(|row| WorkerRow {
        id: row.id,
        host: row.host,
        pid: row.pid,
        version: row.version,
        queues: row.queues,
        concurrency: row.concurrency,
        running: row.running,
        abandoned: row.abandoned,
        status: match row.draining {
            _ if row.silence > SILENT_AFTER_SECONDS => Status::Silent,
            true => Status::Draining,
            false => Status::Live,
        },
        started_at: row.started_at.to_jiff(),
        beat_at: row.beat_at.to_jiff(),
    });
    Ok(of.collect())
}

/// The jobs that a worker runs, as far as the reader may see them; at most 1,000.
pub async fn running(conn: &mut PgConnection, scope: Scope, id: BootId) -> sqlx::Result<Vec<JobId>> {
    let (tenant, user, creator) = scope.columns();
    sqlx::query_scalar!(
        r#"select id as "id: JobId" from jobs where state = 'running' and boot_id = $1
             and ($2::uuid is null or tenant_id = $2) and ($3::uuid is null or user_id = $3)
             and ($4::uuid is null or creator_id = $4)
           order by id limit $5"#,
        id.0,
        tenant,
        user,
        creator,
        MOST,
    )
    .fetch_all(conn)
    .await
}

/// Asks a worker to take no more jobs, or to take them again, which it hears at once. Answers whether
/// there is such a worker.
pub async fn set_draining(tx: &mut Tx, id: BootId, draining: bool) -> sqlx::Result<bool> {
    let found = sqlx::query!("update workers set draining = $2 where boot_id = $1", id.0, draining)
        .execute(tx.conn().await?)
        .await?;
    tx.notices().controls = true;
    Ok(found.rows_affected() > 0)
}
