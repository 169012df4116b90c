//! Roles alone, on a database that somebody else runs.

use sqlx::{Connection, Executor, PgConnection};
use streamspace_testkit::{Postgres, Process, Program, eventually, free_port};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::installation::{DEADLINE, Installation, streamspace};

fn role(name: &str, url: &str, admin_port: u16) -> Program {
    streamspace()
        .args([name, "--database-url", url])
        .env("STREAMSPACE_SERVER_ADMIN_PORT", admin_port.to_string())
}

async fn migrate(url: &str) {
    let (status, output) =
        streamspace().args(["migrate", "--database-url", url]).run(DEADLINE).await.unwrap();
    assert!(status.success(), "{output}");
}

/// The answer of the admin listener as it comes; `None` before it listens.
async fn ask(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

async fn answers(port: u16, path: &str, expected: &str) {
    eventually(DEADLINE, format!("{path} answers {expected}"), async || {
        ask(port, path).await.filter(|answer| answer.contains(expected))
    })
    .await;
}

async fn doctor(url: &str, port: u16) -> String {
    let port = port.to_string();
    let doctor = streamspace().args(["doctor", "--database-url", url]).env("STREAMSPACE_SERVER_PORT", port);
    doctor.run(DEADLINE).await.unwrap().1
}

async fn stops(process: Process) {
    process.term();
    assert!(process.exited(DEADLINE).await.success(), "{}", process.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_waits_for_its_schema_and_says_so() {
    let database = Postgres::shared().await.database().await.unwrap();
    for name in ["api", "worker", "scheduler"] {
        let port = free_port().unwrap();
        let process = role(name, database.url(), port).start().unwrap();
        answers(port, "/health/live", "200 OK").await;
        if name == "api" {
            answers(port, "/health/ready", "run `streamspace migrate`").await;
            answers(port, "/health/ready", "503 ").await;
            migrate(database.url()).await;
        }
        answers(port, "/health/ready", "200 OK").await;
        answers(port, "/metrics", "streamspace_build_info").await;
        stops(process).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_waits_can_be_stopped() {
    let port = free_port().unwrap();
    let process = role("worker", "postgres://nobody:correct-horse@127.0.0.1:1/none", port).start().unwrap();
    process.line("not ready: the database cannot be reached", DEADLINE).await;
    answers(port, "/health/ready", "503 ").await;
    stops(process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_migrations_lives_and_is_not_ready() {
    let database = Postgres::shared().await.database().await.unwrap();
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    // The lock of whoever migrates.
    connection.execute("select pg_advisory_lock(x'53747265616d5370'::bigint)").await.unwrap();
    let installation = Installation::fresh("waits");
    let port = free_port().unwrap();
    let up = installation.command(&["up", "--database-url", database.url(), "--concurrency", "3"]);
    let up = up.env("STREAMSPACE_SERVER_ADMIN_PORT", port.to_string()).start().unwrap();
    answers(port, "/health/live", "200 OK").await;
    answers(port, "/health/ready", "503 ").await;
    answers(port, "/health/ready", "being started or migrated").await;
    assert!(!up.output().contains("runs at"), "{}", up.output());
    connection.close().await.unwrap();
    answers(port, "/health/ready", "200 OK").await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let concurrency: i32 = eventually(DEADLINE, "the worker signs on", async || {
        sqlx::query_scalar("select concurrency from workers").fetch_optional(&mut connection).await.ok()?
    })
    .await;
    assert_eq!(concurrency, 3);
    stops(up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_takes_its_flags() {
    let database = Postgres::shared().await.database().await.unwrap();
    let port = free_port().unwrap();
    let api = role("api", database.url(), 0);
    let api = api.args(["--host", "127.0.0.1", "--port", &port.to_string()]).start().unwrap();
    answers(port, "/health", "503 ").await;
    answers(port, "/api/v1/jobs", "waits for its database").await;
    migrate(database.url()).await;
    answers(port, "/health", "200 OK").await;
    assert!(doctor(database.url(), port).await.contains("pass  api "));
    stops(api).await;
    assert!(doctor(database.url(), port).await.contains("skip  api "));
    // Somebody else's server is no API.
    let other = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = other.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = other.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0, "it asks");
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.ok();
    });
    let output = doctor(database.url(), port).await;
    assert!(output.contains("FAIL  api ") && output.contains("is not StreamSpace"), "{output}");
    assert!(output.contains("pass  reads and writes"), "{output}");
    serving.abort();
    let (status, output) =
        role("worker", database.url(), 0).args(["--concurrency", "0"]).run(DEADLINE).await.unwrap();
    assert!(!status.success() && output.contains("jobs.concurrency (from flag)"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_refuses_a_schema_from_the_future() {
    let database = Postgres::shared().await.database().await.unwrap();
    migrate(database.url()).await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let future = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (9999, 'later', true, '', 0)";
    connection.execute(future).await.unwrap();
    let process = role("worker", database.url(), 0).start().unwrap();
    assert_eq!(process.exited(DEADLINE).await.code(), Some(1));
    let output = process.output();
    assert!(
        output.contains("error: the database's schema 9999 is newer than this release knows"),
        "{output}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_told_with_the_setting_that_chooses_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let process = role("worker", "postgres://nobody:correct-horse@127.0.0.1:1/none", port).start().unwrap();
    assert_eq!(process.exited(DEADLINE).await.code(), Some(1));
    assert!(process.output().contains("--set server.admin_port=…"), "{}", process.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_runs_on_a_database_of_ones_own_as_a_role_without_ddl() {
    let database = Postgres::shared().await.database().await.unwrap();
    let role = format!("app_{}", database.name());
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    connection.execute(sqlx::AssertSqlSafe(format!("create role \"{role}\" login"))).await.unwrap();
    let installation = Installation::fresh("own");
    let mut url = url::Url::parse(database.url()).unwrap();
    url.set_username(&role).unwrap();
    // The owner's URL is for the migrations.
    let up = installation.command(&["up", "--database-url", url.as_str()]);
    let up = up.env("STREAMSPACE_DATABASE_DIRECT_URL", database.url()).start().unwrap();
    up.line("runs at", DEADLINE).await;
    let as_whom = "select usename::text, count(*) from pg_stat_activity
                   where datname = current_database() and application_name = 'streamspace up' group by 1";
    let users: Vec<(String, i64)> = eventually(DEADLINE, "claims, LISTEN and requests connect", async || {
        let users: Vec<(String, i64)> = sqlx::query_as(as_whom).fetch_all(&mut connection).await.ok()?;
        (users.iter().map(|(_, count)| count).sum::<i64>() >= 4).then_some(users)
    })
    .await;
    assert!(matches!(users.as_slice(), [(user, _)] if *user == role), "{users:?}");
    let (status, output) = installation.run(&["doctor", "--database-url", url.as_str()]).await;
    assert!(output.contains(&format!("pass  rights           {role}")), "{output}");
    assert_eq!(status.code(), Some(1), "fsync is off here, which doctor must not like: {output}");
    assert!(output.contains("FAIL  database") && output.contains("fsync"), "{output}");
    stops(up).await;
    assert!(!installation.dir.join("postgres").exists());
}
