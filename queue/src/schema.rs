//! The database's schema: what this release brings along, what a database has, and the way from one
//! to the other.
//!
//! Several processes may migrate at once; one of them does. A lock that is tried again and again
//! decides, not one that is waited for: an index that is built concurrently waits for every older
//! transaction, one that waits for the lock among them, and neither would ever end.
//!
//! A file that begins with `-- no-transaction` holds one `create index concurrently if not exists`
//! and nothing else: PostgreSQL runs several statements of one message as a transaction, and a
//! process that is killed between the end of the build and its record must be able to come again.

use std::{fmt, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, PgExecutor,
    migrate::{MigrateError, Migration, Migrator},
    postgres::PgConnectOptions,
};
use tokio::time::{Instant, sleep};

/// What this release brings along.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// Any number that no other user of the database's advisory locks has.
const LOCK: i64 = 0x5374_7265_616d_5370;
const LOCK_POLL: Duration = Duration::from_millis(100);
const LOCK_PROGRESS: Duration = Duration::from_secs(5);
/// A change to a table waits this long behind a transaction that holds it; meanwhile everything else
/// waits behind the change. Then it lets them pass and tries again.
const TABLE_LOCK: &str = "set lock_timeout = '5s'";
const TABLE_LOCK_TRIES: u32 = 20;

/// A database's schema beside the one that this release knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Current,
    /// Not ready: `streamspace migrate` is to come, or runs.
    Older {
        found: i64,
        needed: i64,
    },
    /// A later release has migrated; this one must not start.
    Newer {
        found: i64,
        known: i64,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => f.write_str("the database's schema is current"),
            Self::Older { found: 0, .. } => {
                f.write_str("the database has no schema yet: run `streamspace migrate`")
            }
            Self::Older { found, needed } => write!(
                f,
                "the database's schema {found} is older than this release needs ({needed}): run `streamspace migrate`"
            ),
            Self::Newer { found, known } => write!(
                f,
                "the database's schema {found} is newer than this release knows ({known}): run the newer release"
            ),
        }
    }
}

/// The newest migration of this release.
pub fn known() -> i64 {
    newest(&MIGRATOR)
}

pub async fn state(executor: impl PgExecutor<'_>) -> sqlx::Result<State> {
    // Unchecked at compile time: the table is not made by a migration of ours.
    let applied = sqlx::query_scalar("select coalesce(max(version), 0) from _sqlx_migrations where success")
        .fetch_one(executor)
        .await;
    let (found, known): (i64, _) = match applied {
        Ok(found) => (found, known()),
        Err(error) if has_code(&error, UNDEFINED_TABLE) => (0, known()),
        Err(error) => return Err(error),
    };
    Ok(match found.cmp(&known) {
        std::cmp::Ordering::Equal => State::Current,
        std::cmp::Ordering::Less => State::Older { found, needed: known },
        std::cmp::Ordering::Greater => State::Newer { found, known },
    })
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", State::Newer { found: *.found, known: *.known })]
    Newer { found: i64, known: i64 },
    #[error("another process has been migrating for {} s and has not ended", .0.as_secs())]
    Busy(Duration),
    #[error("migration {version} failed; nothing of it was kept")]
    Failed { version: i64, source: sqlx::Error },
    #[error("there is no role {0:?} to give the application's rights to")]
    NoRole(String),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// What a migration says while it runs.
#[derive(Debug)]
pub enum Progress {
    Waiting { holder: Option<i32>, since: Duration },
    DroppedIndex { name: String },
    Blocked { version: i64 },
    Applying { version: i64, description: String },
    Applied { version: i64, took: Duration },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { holder, since } => {
                write!(f, "another process migrates")?;
                holder.map_or(Ok(()), |pid| write!(f, " (PostgreSQL's process {pid})"))?;
                write!(f, "; waiting for {} s", since.as_secs())
            }
            Self::DroppedIndex { name } => {
                write!(f, "dropped index {name}, which an earlier migration left unfinished")
            }
            Self::Blocked { version } => {
                write!(f, "migration {version} let others pass that use its table; trying again")
            }
            Self::Applying { version, description } => write!(f, "migration {version}: {description}"),
            Self::Applied { version, took } => write!(f, "migration {version} took {took:.1?}"),
        }
    }
}

/// How to migrate; `Default` is how `streamspace` does.
pub struct Options<'a> {
    pub migrator: &'a Migrator,
    /// Who else is to use the tables. Without one, or if it is who migrates, nobody else may.
    pub app_role: Option<&'a str>,
    /// How long another process may migrate before this one gives up.
    pub patience: Duration,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { migrator: &MIGRATOR, app_role: None, patience: Duration::from_secs(30 * 60) }
    }
}

/// Brings a database to this release's schema, and answers how many migrations that took.
///
/// `database` must be a session's own connection, not a pooler's.
pub async fn migrate(
    database: &PgConnectOptions,
    options: Options<'_>,
    mut progress: impl FnMut(Progress),
) -> Result<usize, Error> {
    let mut connection = database.clone().application_name("streamspace migrate").connect().await?;
    // If this process is killed, its unfinished statement and with it the lock end soon.
    connection.execute("set client_min_messages = warning; set client_connection_check_interval = '1s'; set statement_timeout = 0").await?;
    lock(&mut connection, options.patience, &mut progress).await?;
    let applied = apply_pending(&mut connection, options.migrator, &mut progress).await?;
    if let Some(role) = options.app_role {
        grant(&mut connection, role).await?;
    }
    connection.close().await?; // and with it the lock
    Ok(applied)
}

async fn lock(
    connection: &mut PgConnection,
    patience: Duration,
    progress: &mut impl FnMut(Progress),
) -> Result<(), Error> {
    let started = Instant::now();
    let mut told = started;
    while !sqlx::query_scalar::<_, bool>("select pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut *connection)
        .await?
    {
        if started.elapsed() > patience {
            return Err(Error::Busy(started.elapsed()));
        }
        if told == started || told.elapsed() > LOCK_PROGRESS {
            told = Instant::now();
            let holder = sqlx::query_scalar(
                "select pid from pg_locks
                 where locktype = 'advisory' and granted and objsubid = 1
                   and database = (select oid from pg_database where datname = current_database())
                   and (classid::bigint << 32) | objid::bigint = $1",
            )
            .bind(LOCK)
            .fetch_optional(&mut *connection)
            .await?;
            progress(Progress::Waiting { holder, since: started.elapsed() });
        }
        sleep(LOCK_POLL).await;
    }
    Ok(())
}

async fn apply_pending(
    connection: &mut PgConnection,
    migrator: &Migrator,
    progress: &mut impl FnMut(Progress),
) -> Result<usize, Error> {
    let mut migrator = Migrator::with_migrations(migrator.iter().cloned().collect());
    if is_done(connection, &migrator).await? {
        return Ok(0);
    }
    migrator.set_locking(false); // ours holds
    // Makes sqlx's table if it is missing, and compares what it holds with what we bring.
    match migrator.run_to(0, &mut *connection).await {
        Err(MigrateError::VersionMissing(found)) if found > newest(&migrator) => {
            return Err(Error::Newer { found, known: newest(&migrator) });
        }
        checked => checked?,
    }
    let applied: Vec<i64> =
        sqlx::query_scalar("select version from _sqlx_migrations").fetch_all(&mut *connection).await?;
    let pending: Vec<Migration> =
        migrator.iter().filter(|migration| !applied.contains(&migration.version)).cloned().collect();
    for migration in &pending {
        drop_unfinished_indexes(connection, migration, progress).await?;
        progress(Progress::Applying {
            version: migration.version,
            description: migration.description.to_string(),
        });
        let started = Instant::now();
        apply(connection, &migrator, migration, progress).await?;
        progress(Progress::Applied { version: migration.version, took: started.elapsed() });
    }
    Ok(pending.len())
}

/// Whether exactly these migrations have been applied. Asked first, and so that any role may ask:
/// whoever starts on a current schema needs no right to change it.
async fn is_done(connection: &mut PgConnection, migrator: &Migrator) -> Result<bool, Error> {
    let applied: Vec<(i64, Vec<u8>)> =
        match sqlx::query_as("select version, checksum from _sqlx_migrations where success order by version")
            .fetch_all(connection)
            .await
        {
            Ok(applied) => applied,
            Err(error) if has_code(&error, UNDEFINED_TABLE) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
    let ours = migrator.iter().map(|migration| (migration.version, &*migration.checksum));
    Ok(ours.eq(applied.iter().map(|(version, checksum)| (*version, checksum.as_slice()))))
}

async fn apply(
    connection: &mut PgConnection,
    migrator: &Migrator,
    migration: &Migration,
    progress: &mut impl FnMut(Progress),
) -> Result<(), Error> {
    let version = migration.version;
    // What is built concurrently blocks nobody and has to wait for everybody.
    connection.execute(if migration.no_tx { "set lock_timeout = 0" } else { TABLE_LOCK }).await?;
    let mut tries = 1;
    loop {
        match migrator.run_to(version, &mut *connection).await {
            Err(MigrateError::ExecuteMigration(error, _))
                if has_code(&error, LOCK_NOT_AVAILABLE) && tries < TABLE_LOCK_TRIES =>
            {
                tries += 1;
                progress(Progress::Blocked { version });
                sleep(Duration::from_secs(1)).await;
            }
            Err(MigrateError::ExecuteMigration(source, _)) => return Err(Error::Failed { version, source }),
            other => return Ok(other?),
        }
    }
}

/// A concurrent build that was killed leaves an index behind that has the name, costs every write
/// and serves no read. We hold the lock, so whoever built it is gone.
async fn drop_unfinished_indexes(
    connection: &mut PgConnection,
    migration: &Migration,
    progress: &mut impl FnMut(Progress),
) -> Result<(), Error> {
    if !migration.no_tx {
        return Ok(());
    }
    let invalid: Vec<(String, String)> = sqlx::query_as(
        "select c.relname::text, format('%I.%I', n.nspname, c.relname)
         from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
         where not i.indisvalid and c.relkind = 'i' and n.nspname not like 'pg_%'",
    )
    .fetch_all(&mut *connection)
    .await?;
    for (name, qualified) in invalid {
        if mentions(migration.sql.as_str(), &name) {
            // Quoted by format().
            let drop = AssertSqlSafe(format!("drop index concurrently if exists {qualified}"));
            connection.execute(drop).await?;
            progress(Progress::DroppedIndex { name });
        }
    }
    Ok(())
}

/// As a whole word.
fn mentions(sql: &str, name: &str) -> bool {
    sql.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name)
}

/// The application reads and writes rows and changes nothing else; the audit it only reads and
/// extends.
///
/// Partitions get no rights of their own, they are reached through their parents. For the same
/// reason there are no default privileges: a month that is made later must not become writable past
/// `audit`.
async fn grant(connection: &mut PgConnection, role: &str) -> Result<(), Error> {
    let found: Option<(String, bool)> = sqlx::query_as(
        "select quote_ident(rolname), rolname = current_user from pg_roles where rolname = $1",
    )
    .bind(role)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((quoted, is_owner)) = found else { return Err(Error::NoRole(role.to_owned())) };
    if is_owner {
        return Ok(());
    }
    let parents: Vec<(String, String)> = sqlx::query_as(
        "select relname::text, format('public.%I', relname) from pg_class
         where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut statements = format!(
        "grant usage on schema public, queue to {quoted};
         revoke all on all tables in schema public from {quoted};
         grant usage, select on all sequences in schema public to {quoted};
         revoke execute on all functions in schema queue from public;
         grant execute on all functions in schema queue to {quoted};"
    );
    for (name, table) in parents {
        let rights = match name.as_str() {
            "_sqlx_migrations" => "select",
            "audit" => AUDIT,
            "audit_chain" | "audit_horizon" => "select",
            _ => "select, insert, update, delete",
        };
        statements.push_str(&format!("grant {rights} on {table} to {quoted};"));
    }
    // Names quoted by the database. One message, so one transaction: the application never runs
    // between the revoke and the grant.
    connection.execute(AssertSqlSafe(statements)).await?;
    Ok(())
}

/// Not the time: nobody puts a row where rows are sealed already.
const AUDIT: &str = "select, insert (id, tenant_id, user_id, actor_type, actor_id, action, resource_type, resource_id, \
                     before, after, ip, request_id)";

fn newest(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
}

const UNDEFINED_TABLE: &str = "42P01";
const LOCK_NOT_AVAILABLE: &str = "55P03";

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|found| found == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_outside_a_transaction_can_run_again() {
        for migration in MIGRATOR.iter().filter(|migration| migration.no_tx) {
            let sql = migration.sql.as_str().to_lowercase();
            let statements =
                sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<String>();
            let again = "index concurrently if not exists";
            assert!(statements.contains(again), "{}: {again}", migration.version);
            assert_eq!(statements.trim().matches(';').count(), 1, "{}: one statement", migration.version);
        }
    }

    #[test]
    fn an_index_is_mentioned_by_its_whole_name() {
        let sql = "-- no-transaction\ncreate index concurrently if not exists jobs_due on jobs (run_at);";
        assert!(mentions(sql, "jobs_due"));
        assert!(!mentions(sql, "jobs_du"));
        assert!(!mentions(sql, "job"));
    }
}
