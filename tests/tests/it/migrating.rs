//! Several processes migrate at once; one may be killed in the middle.

use std::path::Path;

use anyhow::Result;
use sqlx::{Connection as _, PgConnection};
use streamspace_testkit::Scratch;

use crate::support::*;

const INDEX: &str = "-- no-transaction\ncreate index concurrently if not exists things_by_id on things (id);";

/// An index that is built concurrently waits for whoever uses its table, and so can be caught in
/// the middle for certain.
#[tokio::test(flavor = "multi_thread")]
async fn three_processes_migrate_and_the_one_that_builds_an_index_is_killed() -> Result<()> {
    let migrations = Scratch::new("migrations")?;
    let path = migrations.path();
    write(
        path,
        "0001_things.sql",
        "create table things (id int); insert into things select generate_series(1, 1000);",
    )?;
    write(path, "0002_index.sql", INDEX)?;
    write(path, "0003_more.sql", "create table more (id int);")?;
    let database = Postgres::shared().await.empty_database().await?;

    // The table exists and is in use before anyone migrates past it.
    let mut user = PgConnection::connect(database.url()).await?;
    let role = Role::new("migrate", database.url(), database.url()).env("FLEET_MIGRATIONS", path);
    let first = path.join("first");
    std::fs::create_dir(&first)?;
    std::fs::copy(path.join("0001_things.sql"), first.join("0001_things.sql"))?;
    let alone = role.clone().env("FLEET_MIGRATIONS", &first).spawn();
    assert!(alone.exited(SOON).await.success(), "{}", alone.output());
    let mut using = user.begin().await?;
    sqlx::query("update things set id = id").execute(&mut *using).await?;

    let mut fleet: Vec<Process> = (0..3).map(|_| role.spawn()).collect();
    let builder = eventually(SOON, "one of them builds the index", async || {
        fleet.iter().position(|process| process.output().contains("migration 2: index"))
    })
    .await;
    let half_built =
        "select count(*) from pg_index where indexrelid = to_regclass('things_by_id') and not indisvalid";
    let mut watcher = PgConnection::connect(database.url()).await?;
    eventually(SOON, "the index is half built", async || one(&mut watcher, half_built).await).await;
    fleet.remove(builder).kill9().await;
    // Its unfinished statement ends soon after it, although nobody told the database.
    let building =
        "select count(*) from pg_stat_activity where query like '-- no-transaction%' and state = 'active'";
    eventually(SOON, "nobody builds any more", async || {
        let builds: i64 = sqlx::query_scalar(building).fetch_one(&mut watcher).await.ok()?;
        (builds == 0).then_some(())
    })
    .await;
    using.commit().await?;

    for process in &fleet {
        assert!(process.exited(LATER).await.success(), "{}", process.output());
    }
    let said: String = fleet.iter().map(Process::output).collect();
    assert!(said.contains("dropped index things_by_id"), "what the dead one left is removed:\n{said}");
    let whole = "select count(*) from pg_index where indexrelid = 'things_by_id'::regclass and indisvalid";
    assert_eq!(one(&mut watcher, whole).await, Some(1));
    assert_eq!(one(&mut watcher, "select count(*) from _sqlx_migrations where success").await, Some(3));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_migration_of_the_product_runs_once_when_five_start_at_once() -> Result<()> {
    let database = Postgres::shared().await.empty_database().await?;
    let role = Role::new("migrate", database.url(), database.url());
    let fleet: Vec<Process> = (0..5).map(|_| role.spawn()).collect();
    let mut applied = 0;
    for process in &fleet {
        assert!(process.exited(LATER).await.success(), "{}", process.output());
        applied += process.output().lines().filter(|line| line.contains(" took ")).count();
    }
    let mut connection = PgConnection::connect(database.url()).await?;
    let rows: i64 =
        sqlx::query_scalar("select count(*) from _sqlx_migrations").fetch_one(&mut connection).await?;
    assert_eq!(applied, usize::try_from(rows)?, "each was applied by one of them");
    Ok(())
}

fn write(dir: &Path, name: &str, sql: &str) -> Result<()> {
    Ok(std::fs::write(dir.join(name), sql)?)
}

/// `Some` unless it is null or 0.
async fn one(connection: &mut PgConnection, sql: &'static str) -> Option<i64> {
    let number: Option<i64> = sqlx::query_scalar(sql).fetch_one(connection).await.ok()?;
    number.filter(|number| *number > 0)
}
