//! Configuration on the command line.

use std::{fs, os::unix::fs::PermissionsExt};

use streamspace_testkit::{Program, Scratch};

use crate::installation::{DEADLINE, streamspace};

async fn run(program: Program) -> (Option<i32>, String) {
    let (status, output) = program.run(DEADLINE).await.unwrap();
    (status.code(), output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_key_is_refused_by_name() {
    let (code, output) = run(streamspace().args(["up", "--set", "server.prot=1"])).await;
    assert_eq!(code, Some(1));
    assert!(output.contains("server.prot") && output.contains("server.port"), "{output}");
    let (code, output) =
        run(streamspace().args(["config", "check"]).env("STREAMSPACE_JOBS_LEASE", "1s")).await;
    assert_eq!(code, Some(1));
    assert!(output.contains("jobs.lease"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn show_names_sources_and_hides_secrets() {
    let program = streamspace().args(["config", "show", "--set", "jobs.concurrency=7"]);
    let (code, output) = run(program.env("STREAMSPACE_DATABASE_PASSWORD", "correct horse battery")).await;
    assert_eq!(code, Some(0));
    let line = |key: &str| output.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("jobs.concurrency").contains("7") && line("jobs.concurrency").ends_with("flag"));
    assert!(line("database.password").ends_with("STREAMSPACE_DATABASE_PASSWORD"));
    assert!(!output.contains("correct horse"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn init_writes_once_and_check_accepts_it() {
    let folder = Scratch::new("init").unwrap();
    let file = folder.path().join("env");
    let init = || streamspace().args(["config", "init", "production", "--output"]).arg(&file);
    assert_eq!(run(init()).await.0, Some(0));
    let written = fs::read_to_string(&file).unwrap();
    let (code, output) = run(init()).await;
    assert_eq!(code, Some(1));
    assert!(output.contains("--force"), "{output}");
    assert_eq!(fs::read_to_string(&file).unwrap(), written);

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(run(init().arg("--force")).await.0, Some(0));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let written = fs::read_to_string(&file).unwrap();

    let check = Program::new(env!("CARGO_BIN_EXE_streamspace")).args(["config", "check"]);
    let settings =
        written.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    let (code, output) = run(settings.fold(check, |program, (name, value)| program.env(name, value))).await;
    assert_eq!(code, Some(0), "{output}");
}
