use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use streamspace_testkit::{Program, eventually};

const SOON: Duration = Duration::from_secs(5);

fn shell(script: &str) -> Program {
    Program::new("sh").arg("-c").arg(script)
}

#[tokio::test]
async fn a_process_says_lines_and_ends_as_asked() -> Result<()> {
    let process =
        shell("trap 'echo bye; exit 3' TERM; echo ready >&2; while :; do sleep 0.01; done").start()?;
    assert_eq!(process.line("read", SOON).await, "ready");
    assert!(process.status().is_none());
    process.term();
    assert_eq!(process.exited(SOON).await.code(), Some(3));
    assert_eq!(process.line("bye", SOON).await, "bye");
    Ok(())
}

#[tokio::test]
async fn a_stopped_process_does_nothing_until_continued() -> Result<()> {
    let process = shell("i=0; while :; do i=$((i+1)); echo line-$i; sleep 0.01; done").start()?;
    process.line("line-3", SOON).await;
    process.stop();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap_or_default();
    eventually(SOON, "it is stopped", async || state().contains(") T ").then_some(())).await;
    process.cont();
    eventually(SOON, "it goes on", async || (!state().contains(") T ")).then_some(())).await;
    process.stop();
    process.kill9().await;
    Ok(())
}

#[tokio::test]
async fn its_memory_of_the_output_is_bounded() -> Result<()> {
    let (status, output) =
        shell("i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line-$i; done").run(SOON).await?;
    assert!(status.success());
    assert!(output.contains("lines before") && output.ends_with("line-2000") && !output.contains("line-1\n"));
    Ok(())
}

#[tokio::test]
async fn a_dropped_process_is_gone() -> Result<()> {
    let process = shell("echo up; exec sleep 60").start()?;
    process.line("up", SOON).await;
    let pid = Pid::from_raw(process.pid());
    drop(process);
    assert!(kill(pid, None).is_err());
    Ok(())
}

/// Started from a thread that ends: its children must not end with it.
#[tokio::test]
async fn a_process_outlives_the_thread_that_started_it() -> Result<()> {
    let process = std::thread::spawn(|| shell("sleep 0.2; echo still here; exec sleep 60").start())
        .join()
        .expect("the thread ends")?;
    process.line("still here", SOON).await;
    assert!(process.status().is_none());
    Ok(())
}

/// The test binary starts itself, running the test below, and kills that.
#[tokio::test]
async fn what_a_killed_test_run_started_is_gone_and_so_are_its_files() -> Result<()> {
    let run = Program::new(std::env::current_exe()?)
        .args(["--ignored", "--exact", "--nocapture", "processes::a_run_that_is_killed"])
        .start()?;
    let line = run.line("started", Duration::from_secs(60)).await;
    let words: Vec<&str> = line.split_whitespace().skip_while(|word| *word != "started").collect();
    let (sleeper, port, dir) = (words[1].parse()?, words[2].to_owned(), words[3].to_owned());
    assert!(kill(Pid::from_raw(sleeper), None).is_ok() && std::fs::exists(&dir)?);
    run.kill9().await;
    let start = Instant::now();
    let connects = async || tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_ok();
    eventually(SOON, "the sleeper is gone", async || {
        kill(Pid::from_raw(sleeper), None).is_err().then_some(())
    })
    .await;
    eventually(SOON, "the server is gone", async || (!connects().await).then_some(())).await;
    eventually(SOON, "the files are gone", async || (!std::fs::exists(&dir).unwrap_or(true)).then_some(()))
        .await;
    assert!(start.elapsed() < SOON);
    Ok(())
}

#[tokio::test]
#[ignore = "the victim of the test above"]
#[expect(clippy::print_stdout, reason = "how the victim says that it is ready")]
async fn a_run_that_is_killed() -> Result<()> {
    let sleeper = Program::new("sleep").arg("60").start()?;
    let server = streamspace_testkit::Redis::start().await?;
    let scratch = streamspace_testkit::Scratch::new("victim")?;
    println!("\nstarted {} {} {}", sleeper.pid(), server.port(), scratch.path().display());
    std::future::pending().await
}
