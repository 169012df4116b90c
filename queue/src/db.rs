//! Connections: a pool that may point at a pooler, and a few direct ones for what a pooler breaks.

use std::{
    ops::{Deref, DerefMut},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    Connection, PgConnection, PgPool, Postgres, Transaction,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::Instant;

/// Where PostgreSQL is, and how many connections this process may hold.
#[derive(Clone)]
pub struct DbOptions {
    pub url: String,
    /// Set when `url` is a pooler in transaction mode: LISTEN, locks and the engine's own loops
    /// connect here.
    pub direct_url: Option<String>,
    pub max_connections: u32,
    /// Shown by `pg_stat_activity`.
    pub application: String,
}

/// How many of a process's connections the engine keeps for itself: one for each of its loops, so that none
/// waits for another's (claims, acknowledgements, beat, pulse, rescue, sweep, promotion), and the listener's.
/// The notifier's is none of the pool's.
const DIRECT_CONNECTIONS: u32 = 8;
const NOTIFIER_CONNECTIONS: u32 = 1;

/// A network that swallows packets is noticed after this time by loops that wait for an answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(15);

/// A server that waits so long for a client in the middle of its transaction takes it for gone, and
/// lets go of the rows that it holds.
const IDLE_IN_TRANSACTION: &str = "60s";

/// sqlx numbers its statements per client connection, cached or not, so those that another client
/// has left on the server connection have the names that ours will get. One round trip, as `begin`.
///
/// A pooler passes no options on, so the patience of [`IDLE_IN_TRANSACTION`] is said here.
const POOLED_BEGIN: &str = "begin; set local idle_in_transaction_session_timeout = '60s'; deallocate all";

/// Begins a transaction that waits for nobody's lock for long: whoever holds one for a second in the middle
/// of a claim is frozen, and who waits for it claims nothing else.
pub(crate) const BEGIN_IMPATIENTLY: &str = "begin; set local lock_timeout = '1s'";

/// So long after it was used last a connection is taken to live.
const TRUSTED: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct Db {
    pool: PgPool,
    direct: PgPool,
    pooled: bool,
}

impl Db {
    /// Makes the pools. Connections are opened when they are first needed, so a database that is
    /// down at the start is reported by readiness, not by an exit.
    pub fn new(options: &DbOptions) -> sqlx::Result<Self> {
        let pooled = options.direct_url.as_ref().is_some_and(|direct| *direct != options.url);
        let connect = |url: &str| -> sqlx::Result<PgConnectOptions> {
            Ok(PgConnectOptions::from_str(url)?.application_name(&options.application))
        };
        let patience = [("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION)];
        let mut main = connect(&options.url)?;
        if !pooled {
            main = main.options(patience);
        } else {
            // A prepared statement lives on one server connection, and a pooler changes that one
            // after every transaction. See `POOLED_BEGIN` too.
            main = main.statement_cache_capacity(0).extra_float_digits(None);
        }
        let direct = connect(options.direct_url.as_ref().unwrap_or(&options.url))?.options(patience);
        let pool = |most: u32| {
            PgPoolOptions::new()
                .max_connections(most)
                .acquire_timeout(Duration::from_secs(5))
                .idle_timeout(Duration::from_secs(600))
                // It is asked whether it lives when it is put back; asked again by each request it would
                // take a read by id twice the time.
                .test_before_acquire(false)
                .before_acquire(|connection, meta| {
                    Box::pin(async move {
                        if meta.idle_for >= TRUSTED {
                            connection.ping().await?;
                        }
                        Ok(true)
                    })
                })
        };
        Ok(Self {
            pool: pool(
                options.max_connections.saturating_sub(DIRECT_CONNECTIONS + NOTIFIER_CONNECTIONS).max(2),
            )
            .connect_lazy_with(main),
            direct: pool(DIRECT_CONNECTIONS).connect_lazy_with(direct),
            pooled,
        })
    }

    /// For requests and handlers. Outside a transaction use [`Db::read`], which a pooler survives.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// For the engine's loops, LISTEN and session locks.
    pub fn direct(&self) -> &PgPool {
        &self.direct
    }

    /// Does something of the engine's on a direct connection, but not for ever.
    pub(crate) async fn direct_within<T>(
        &self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        on_one_of(&self.direct, limit, work).await
    }

    /// Reads something for the engine, as on a connection of [`Db::read`], but not for ever.
    pub(crate) async fn read_within<T>(
        &self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        if !self.pooled {
            return on_one_of(&self.pool, limit, work).await;
        }
        let in_transaction =
            async |conn: &mut PgConnection| work(&mut *conn.begin_with(POOLED_BEGIN).await?).await;
        on_one_of(&self.pool, limit, in_transaction).await
    }

    pub async fn begin(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        if self.pooled { self.pool.begin_with(POOLED_BEGIN).await } else { self.pool.begin().await }
    }

    /// A connection for reading: bare when it can be, since a transaction doubles the cost of a
    /// read by id; in a transaction behind a pooler, which keeps it on one server connection.
    pub async fn read(&self) -> sqlx::Result<Reader> {
        Ok(if self.pooled {
            Reader::Tx(self.begin().await?)
        } else {
            Reader::Bare(self.pool.acquire().await?)
        })
    }

    pub async fn close(&self) {
        tokio::join!(self.pool.close(), self.direct.close());
    }
}

pub enum Reader {
    Bare(PoolConnection<Postgres>),
    Tx(Transaction<'static, Postgres>),
}

impl Deref for Reader {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        match self {
            Self::Bare(connection) => connection,
            Self::Tx(tx) => tx,
        }
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Bare(connection) => connection,
            Self::Tx(tx) => tx,
        }
    }
}

/// The limit holds for both, the wait for a connection and what is done on it.
///
/// A connection that does not answer in time is closed, not put back: who knows whether anybody is
/// still at its other end.
async fn on_one_of<T>(
    pool: &PgPool,
    limit: Duration,
    work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> sqlx::Result<T> {
    let began = Instant::now();
    let mut connection = within(limit, pool.acquire()).await?;
    let answer = within(limit.saturating_sub(began.elapsed()), work(&mut connection)).await;
    if answer.as_ref().is_err_and(is_silence) {
        drop(connection.detach());
    }
    answer
}

/// Waits for an answer of the database, but not for ever.
pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("the database did not answer within {limit:?}"),
        ))),
    }
}

pub(crate) fn is_silence(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut)
}

/// Somebody else's lock was waited for in vain.
pub(crate) fn is_held(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55P03")
}

/// Closes a connection. A pool that gets it back would first ask whether it is well, and wait.
pub(crate) fn discard(connection: &mut Option<PoolConnection<Postgres>>) {
    if let Some(connection) = connection.take() {
        drop(connection.detach());
    }
}

#[cfg(test)]
mod tests {
    use streamspace_testkit::{Postgres, Proxy, eventually};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// It would hold its place in the pool for as long as nobody says that its other end is gone.
    #[tokio::test]
    async fn a_connection_that_fell_silent_is_not_put_back() {
        let database = Postgres::shared().await.database().await.expect("a database");
        let proxy = Proxy::to(database.port()).await.expect("a proxy");
        let url = format!("postgres://postgres@127.0.0.1:{}/{}", proxy.port(), database.name());
        for pooled in [false, true] {
            let direct_url = pooled.then(|| database.url().to_owned());
            let options =
                DbOptions { url: url.clone(), direct_url, max_connections: 8, application: "test".into() };
            let db = Db::new(&options).expect("a database URL");
            let ask = async |conn: &mut PgConnection| sqlx::query("select 1").execute(conn).await;
            db.read_within(SOON, ask).await.expect("an answer");
            eventually(SOON, "it is put back", async || (db.pool().num_idle() == 1).then_some(())).await;
            let silenced = db.read_within(Duration::from_millis(500), async |conn| {
                proxy.silence();
                ask(conn).await
            });
            assert!(silenced.await.is_err_and(|error| is_silence(&error)));
            assert_eq!(db.pool().size(), 0, "its place is free");
            proxy.restore();
        }
    }

    /// A worker that froze in the middle of a commit would hold the rows of its job for ever.
    #[tokio::test]
    async fn behind_a_pooler_a_transaction_that_stands_still_ends_too() {
        let database = Postgres::shared().await.database().await.expect("a database");
        let options = DbOptions {
            url: format!("{}?sslmode=disable", database.url()),
            direct_url: Some(database.url().to_owned()),
            max_connections: 8,
            application: "test".into(),
        };
        let db = Db::new(&options).expect("a database URL");
        let limit = async |conn: &mut PgConnection| -> sqlx::Result<String> {
            sqlx::query_scalar("show idle_in_transaction_session_timeout").fetch_one(conn).await
        };
        let mut tx = db.begin().await.expect("a transaction");
        assert_eq!(limit(&mut tx).await.expect("read"), "1min");
        tx.commit().await.expect("committed");
        assert_eq!(db.read_within(SOON, limit).await.expect("read"), "1min");
        let mut bare = db.pool().acquire().await.expect("a connection");
        assert_eq!(limit(&mut bare).await.expect("read"), "0", "it is the transaction's alone");
    }

    #[tokio::test]
    async fn who_waited_for_a_connection_has_less_time_on_it() {
        let database = Postgres::shared().await.database().await.expect("a database");
        let options = DbOptions {
            url: database.url().to_owned(),
            direct_url: None,
            max_connections: 8,
            application: "test".into(),
        };
        let db = Db::new(&options).expect("a database URL");
        let mut taken = Vec::new();
        for _ in 0..db.pool().options().get_max_connections() {
            taken.push(db.pool().acquire().await.expect("a connection"));
        }
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            drop(taken);
        });
        let began = Instant::now();
        let sleep = async |conn: &mut PgConnection| sqlx::query("select pg_sleep(60)").execute(conn).await;
        let silent = db.read_within(Duration::from_secs(3), sleep).await;
        assert!(silent.is_err_and(|error| is_silence(&error)));
        assert!(began.elapsed() < Duration::from_millis(4_500), "{:?}", began.elapsed());
    }
}
