use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{Connection, PgConnection};
use streamspace_testkit::{Options, PgBouncer, Postgres, Redis, Scratch, eventually};

const SOON: Duration = Duration::from_secs(10);

async fn count(url: &str) -> Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    let count = sqlx::query_scalar("select count(*) from things").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(count)
}

#[tokio::test]
async fn a_database_is_a_private_copy_of_the_template() -> Result<()> {
    let migrations = Scratch::new("migrations")?;
    let path = migrations.path();
    std::fs::write(
        path.join("0001_things.sql"),
        "create table things (id int); insert into things values (1);",
    )?;
    std::fs::write(
        path.join("0002_index.sql"),
        "-- no-transaction\ncreate index concurrently things_id on things (id);",
    )?;
    let postgres = Postgres::shared().await.template(path).await?;
    let start = Instant::now();
    let (a, b) = tokio::try_join!(postgres.database(), postgres.database())?;
    assert!(start.elapsed() < Duration::from_secs(2), "copies are cheap: {:?}", start.elapsed());
    let mut connection = PgConnection::connect(a.url()).await?;
    sqlx::query("insert into things values (2)").execute(&mut connection).await?;
    assert_eq!((count(a.url()).await?, count(b.url()).await?), (2, 1));

    let name = a.name().to_owned();
    drop(a); // although `connection` is open
    assert!(PgConnection::connect(&postgres.url(&name)).await.is_err(), "it is dropped with the value");
    Ok(())
}

#[tokio::test]
async fn the_time_of_a_database_shifts_for_everyone() -> Result<()> {
    let database = Postgres::shared().await.database().await?;
    let mut before = PgConnection::connect(database.url()).await?;
    database.shift_clock("my.shift", "1 hour").await?;
    assert!(before.ping().await.is_err(), "who knew the old time is gone");
    let mut after = PgConnection::connect(database.url()).await?;
    let shift: String =
        sqlx::query_scalar("select current_setting('my.shift')").fetch_one(&mut after).await?;
    assert_eq!(shift, "1 hour");
    Ok(())
}

#[tokio::test]
async fn a_commit_survives_a_crash_of_the_server() -> Result<()> {
    let postgres = Postgres::start(Options { fsync: true, ..Options::default() }).await?;
    let database = postgres.database().await?;
    let mut connection = PgConnection::connect(database.url()).await?;
    sqlx::query("create table things (id int)").execute(&mut connection).await?;
    for crash in 1..=2 {
        let mut connection = PgConnection::connect(database.url()).await?;
        sqlx::query("insert into things values (1)").execute(&mut connection).await?;
        postgres.crash().await;
        assert!(connection.ping().await.is_err());
        postgres.restart().await?;
        assert_eq!(count(database.url()).await?, crash);
    }
    postgres.restart().await?;
    assert_eq!(count(database.url()).await?, 2);
    Ok(())
}

#[tokio::test]
async fn chosen_backends_are_killed() -> Result<()> {
    let database = Postgres::shared().await.database().await?;
    let mut spared = PgConnection::connect(&format!("{}?application_name=spared", database.url())).await?;
    let mut victim = PgConnection::connect(&format!("{}?application_name=victim", database.url())).await?;
    spared.ping().await?;
    victim.ping().await?;
    assert_eq!(database.kill_backends("vict%").await?, 1);
    assert!(victim.ping().await.is_err() && spared.ping().await.is_ok());
    Ok(())
}

#[tokio::test]
async fn pgbouncer_shares_sessions_between_transactions() -> Result<()> {
    let database = Postgres::shared().await.database().await?;
    let bouncer = PgBouncer::start(&database).await?;
    let mut connections = vec![];
    for _ in 0..20 {
        connections.push(PgConnection::connect(bouncer.url()).await?);
    }
    let mut backends = std::collections::HashSet::new();
    for connection in &mut connections {
        let mut tx = connection.begin().await?;
        let pid: i32 =
            sqlx::query_scalar("select pg_backend_pid()").persistent(false).fetch_one(&mut *tx).await?;
        backends.insert(pid);
        tx.commit().await?;
    }
    assert!(backends.len() <= 8, "twenty clients, {} sessions", backends.len());
    Ok(())
}

#[tokio::test]
async fn redis_dies_and_comes_back_on_its_port() -> Result<()> {
    let mut redis = Redis::start().await?;
    let port = redis.port();
    let connects = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
    assert!(connects().await);
    redis.kill().await;
    assert!(!connects().await);
    redis.restart().await?;
    eventually(SOON, "redis answers", async || connects().await.then_some(())).await;
    assert_eq!(redis.url(), format!("redis://127.0.0.1:{port}"));
    Ok(())
}
