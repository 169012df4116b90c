//! Several processes migrate at once.

use std::fs;

use sqlx::{Connection, Executor, PgConnection};
use streamspace_testkit::{Options, Postgres, Process, Scratch, eventually};

use crate::installation::{DEADLINE, streamspace};

const TABLE: &str = "create table big (id int); insert into big select generate_series(1, 10000);";
const INDEX: &str = "-- no-transaction\ncreate index concurrently if not exists big_id on big (id);";

struct Migrations {
    url: String,
    dir: Scratch,
}

impl Migrations {
    fn start(&self) -> Process {
        let program = streamspace().args(["migrate", "--database-url", &self.url]);
        program.env("STREAMSPACE_TEST_MIGRATIONS", self.dir.path()).start().unwrap()
    }

    fn add(&self, file: &str, sql: &str) {
        fs::write(self.dir.path().join(file), sql).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_migrate_and_one_is_killed_while_it_builds_an_index_concurrently() {
    let postgres = Postgres::start(Options::default()).await.unwrap();
    let database = postgres.database().await.unwrap();
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let migrations = Migrations { url: database.url().to_owned(), dir: Scratch::new("migrations").unwrap() };

    migrations.add("9001_table.sql", TABLE);
    let together = [migrations.start(), migrations.start(), migrations.start()];
    for process in together {
        assert!(process.exited(DEADLINE).await.success(), "{}", process.output());
    }

    // The build waits for whoever writes to the table, with the index in place and not valid.
    migrations.add("9002_index.sql", INDEX);
    let mut writer = PgConnection::connect(database.url()).await.unwrap();
    writer.execute("begin; insert into big values (0)").await.unwrap();
    let killed = migrations.start();
    eventually(DEADLINE, "the index is being built", async || {
        let found: Option<bool> =
            sqlx::query_scalar("select indisvalid from pg_index where indexrelid = to_regclass('big_id')")
                .fetch_optional(&mut connection)
                .await
                .unwrap();
        found.map(|valid| assert!(!valid))
    })
    .await;
    let others = [migrations.start(), migrations.start()];
    for process in &others {
        process.line("another process migrates", DEADLINE).await;
    }
    killed.kill9().await;
    eventually(DEADLINE, "PostgreSQL sees that the builder is gone", async || {
        let building: i64 = sqlx::query_scalar("select count(*) from pg_stat_activity where query like '%big_id on big%' and pid <> pg_backend_pid() and state = 'active'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        (building == 0).then_some(())
    })
    .await;
    writer.execute("commit").await.unwrap();

    let mut output = String::new();
    for process in others {
        assert!(process.exited(DEADLINE).await.success(), "{}", process.output());
        output += &process.output();
    }
    assert!(output.contains("dropped index big_id"), "{output}");
    let (valid, recorded): (bool, i64) = sqlx::query_as(
        "select (select indisvalid from pg_index where indexrelid = 'big_id'::regclass),
                (select count(*) from _sqlx_migrations where version = 9002 and success)",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert!(valid);
    assert_eq!(recorded, 1);

    // For this release alone, the database is now from the future.
    let (status, output) =
        streamspace().args(["migrate", "--database-url", &migrations.url]).run(DEADLINE).await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("newer than this release knows"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_keeps_nothing_and_says_why() {
    let postgres = Postgres::shared().await;
    let database = postgres.database().await.unwrap();
    let migrations = Migrations { url: database.url().to_owned(), dir: Scratch::new("migrations").unwrap() };
    migrations.add("9001_broken.sql", "create table half (id int); select 1 / 0;");
    let process = migrations.start();
    assert_eq!(process.exited(DEADLINE).await.code(), Some(1));
    let output = process.output();
    assert!(output.contains("migration 9001 failed") && output.contains("division by zero"), "{output}");
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let half: Option<String> =
        sqlx::query_scalar("select to_regclass('half')::text").fetch_one(&mut connection).await.unwrap();
    assert_eq!(half, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applications_role_reads_and_writes_rows_and_nothing_else() {
    let postgres = Postgres::shared().await;
    let database = postgres.database().await.unwrap();
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    let role = format!("app_{}", database.name());
    let make = sqlx::AssertSqlSafe(format!("create role \"{role}\""));
    owner.execute(make).await.unwrap();
    let migrate = ["migrate", "--database-url", database.url(), "--app-role", &role];
    let (status, output) = streamspace().args(migrate).run(DEADLINE).await.unwrap();
    assert!(status.success(), "{output}");

    owner.execute(sqlx::AssertSqlSafe(format!("set role \"{role}\""))).await.unwrap();
    let audit = "insert into audit (id, tenant_id, actor_type, action, resource_type)
                 values (gen_random_uuid(), gen_random_uuid(), 'system', 'a', 'b')";
    for allowed in
        ["update jobs set state = state", "delete from job_keys", audit, "select queue.make_partitions()"]
    {
        owner.execute(allowed).await.unwrap();
    }
    let months: Vec<String> = sqlx::query_scalar(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'audit'::regclass",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert!(!months.is_empty());
    let past_the_parent = months.iter().map(|month| format!("delete from {month}"));
    let refused = [
        "update audit set action = 'x'",
        "delete from audit",
        "truncate audit",
        "create table mine ()",
        "drop table jobs",
        "delete from _sqlx_migrations",
    ];
    for statement in refused.into_iter().map(ToOwned::to_owned).chain(past_the_parent) {
        let error = owner.execute(sqlx::AssertSqlSafe(statement.clone())).await.expect_err(&statement);
        let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
    }
}
