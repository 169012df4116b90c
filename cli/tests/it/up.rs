//! The embedded PostgreSQL: started, adopted, recovered, refused.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::Signal,
    unistd::{Pid, geteuid, getpgid},
};
use streamspace_testkit::{Program, eventually};

use crate::installation::{DEADLINE, Installation, streamspace};

#[tokio::test(flavor = "multi_thread")]
async fn starts_stops_and_starts_again_within_three_seconds() {
    let installation = Installation::fresh("again");
    let first = installation.up().await;
    assert!(first.output().contains(&installation.dir.display().to_string()), "{}", first.output());
    first.signal(Signal::SIGINT);
    assert!(first.exited(DEADLINE).await.success());
    assert_eq!(installation.postmaster(), None, "the server ended with it");

    let started = Instant::now();
    let second = installation.up().await;
    assert!(started.elapsed().as_secs_f32() < 3.0, "{:?}", started.elapsed());
    second.term();
    assert!(second.exited(DEADLINE).await.success());
}

/// A row that is left looks like a worker that died, and others wait for its lease to run out.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_signs_off_whenever_it_is_told_to_end_and_however_often() {
    let installation = Installation::new("signs-off").await;
    let mut before = installation.up().await;
    for round in 0..8 {
        // As the worker starts, as it has started; and a terminal may tell a process twice.
        tokio::time::sleep(Duration::from_millis(25 * round)).await;
        before.signal(Signal::SIGINT);
        if round % 2 == 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            before.signal(Signal::SIGINT);
        }
        assert!(before.exited(DEADLINE).await.success(), "{}", before.output());
        let after = installation.up().await;
        let left: Vec<i32> = sqlx::query_scalar("select pid from workers where pid = $1")
            .bind(before.pid())
            .fetch_all(&mut installation.connect().await)
            .await
            .unwrap();
        assert!(left.is_empty(), "round {round}: {}", before.output());
        before = after;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_parent_leaves_a_server_that_the_next_start_adopts() {
    let installation = Installation::new("adopt").await;
    let first = installation.up().await;
    let server = installation.postmaster().unwrap();
    // A terminal's Ctrl-C reaches the foreground's process group: the server must not be in it.
    assert_ne!(getpgid(Some(server)).unwrap(), getpgid(Some(Pid::from_raw(first.pid()))).unwrap());
    first.kill9().await;

    let second = installation.up().await;
    assert_eq!(installation.postmaster(), Some(server), "{}", second.output());
    second.term();
    assert!(second.exited(DEADLINE).await.success());
    assert_eq!(installation.postmaster(), None, "what was adopted ends too");
}

#[tokio::test(flavor = "multi_thread")]
async fn recovers_when_both_were_killed() {
    let installation = Installation::new("recover").await;
    let first = installation.up().await;
    installation.kill_postmaster();
    first.kill9().await;
    installation.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_id_that_another_program_has_now_stops_no_start() {
    let installation = Installation::new("reused").await;
    let first = installation.up().await;
    first.term();
    first.exited(DEADLINE).await;
    // What a machine that lost power leaves behind, if after its boot we have that server's number.
    let left_over =
        format!("{}\n{}\n1\n5432\n\n\n", std::process::id(), installation.dir.join("postgres").display());
    fs::write(installation.dir.join("postgres/postmaster.pid"), left_over).unwrap();
    installation.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_is_started_again() {
    let installation = Installation::new("restart").await;
    let up = installation.up().await;
    let server = installation.postmaster();
    installation.kill_postmaster();
    up.line("PostgreSQL runs again", DEADLINE).await;
    assert_ne!(installation.postmaster(), server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_on_the_same_directory_is_refused() {
    let installation = Installation::new("twice").await;
    let first = installation.up().await;
    let (status, output) = installation.run(&["up"]).await;
    assert_eq!(status.code(), Some(1));
    assert!(output.contains(&format!("is in use by process {}", first.pid())), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_first_start_leaves_nothing_that_stops_the_next() {
    let installation = Installation::fresh("interrupted");
    for reached in ["postgres.new-", "postgres"] {
        let process = installation.command(&["up"]).start().unwrap();
        eventually(DEADLINE, "the first start gets so far", async || {
            let entries = fs::read_dir(&installation.dir).ok()?;
            entries.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(reached))
        })
        .await;
        process.kill9().await;
    }
    installation.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_major_version_is_not_touched() {
    let installation = Installation::new("major").await;
    let first = installation.up().await;
    first.term();
    first.exited(DEADLINE).await;
    let version = installation.dir.join("postgres/PG_VERSION");
    let ours = fs::read_to_string(&version).unwrap();
    fs::write(&version, "9\n").unwrap();

    let (status, output) = installation.run(&["up"]).await;
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("was made by PostgreSQL 9"), "{output}");
    assert!(output.contains("/pg_upgrade -U postgres") && output.contains("/initdb -D"), "{output}");

    fs::write(&version, ours).unwrap();
    installation.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_and_long_paths_are_no_obstacle() {
    for dir in ["with space, comma'quote", &"long/".repeat(25)] {
        let installation = Installation::at("paths", dir);
        let up = installation.up().await;
        let socket_dir = installation.socket_dir();
        assert!(socket_dir.is_dir());
        up.term();
        assert!(up.exited(DEADLINE).await.success(), "{dir}");
        assert!(!socket_dir.exists(), "{} is left behind", socket_dir.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_for_a_user_without_rights() {
    if !geteuid().is_root() {
        return; // then every other test here is this one
    }
    let installation = Installation::fresh("nobody");
    let home = installation.dir.clone();
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
    let program = home.join("streamspace");
    fs::copy(env!("CARGO_BIN_EXE_streamspace"), &program).unwrap();
    let up = Program::new("/usr/bin/setpriv")
        .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"])
        .arg(&program)
        .arg("up")
        .env("HOME", &home)
        .env("STREAMSPACE_SERVER_PORT", "0")
        .env("STREAMSPACE_SERVER_ADMIN_PORT", "0")
        .start()
        .unwrap();
    up.line("runs at", DEADLINE).await;
    let data = home.join(".local/share/streamspace");
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    up.term();
    assert!(up.exited(DEADLINE).await.success(), "{}", up.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_server_may_not_be_locked_out_by_a_closed_folder() {
    if !geteuid().is_root() {
        return;
    }
    let installation = Installation::at("closed", "closed/data");
    let closed = installation.dir.parent().unwrap();
    fs::create_dir(closed).unwrap();
    fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).unwrap();
    let (status, output) = installation.run(&["up"]).await;
    assert_eq!(status.code(), Some(1));
    assert!(output.contains(&format!("may not enter {}", closed.display())), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_is_told_in_a_line() {
    let installation = Installation::fresh("wrong");
    let (status, output) = streamspace().args(["up", "--no-such-flag"]).run(DEADLINE).await.unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(output.contains("--no-such-flag"), "{output}");
    let unreachable = "postgres://x:correct-horse@127.0.0.1:1/x";
    let (status, output) = installation.run(&["up", "--database-url", unreachable]).await;
    assert_eq!(status.code(), Some(1));
    assert!(
        output.lines().any(|line| line.starts_with("error: ")) && !output.contains("panicked"),
        "{output}"
    );
    assert!(!output.contains("correct-horse"), "{output}");
}
