//! Processes that a test starts, watches and kills.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{HostClock, eventually, nursery, scratch};

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    name: String,
    drop_root: bool,
    death_signal: &'static str,
}

impl Program {
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_path_buf();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { path, args: vec![], env: vec![], dir: None, name, drop_root: false, death_signal: "KILL" }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_path_buf());
        self
    }

    /// What it is called where its output is printed.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Its wall clock is this one; its monotonic clock stays true, as on a host whose time was set.
    pub fn with_faketime(self, clock: &HostClock) -> Self {
        clock.env().into_iter().fold(self, |program, (name, value)| program.env(name, value))
    }

    /// For servers that refuse to run as root.
    pub(crate) fn unprivileged(mut self) -> Self {
        self.drop_root = true;
        self
    }

    /// What it is sent when the test run dies, where that is not `KILL`.
    pub(crate) fn death_signal(mut self, signal: &'static str) -> Self {
        self.death_signal = signal;
        self
    }

    pub fn start(&self) -> Result<Process> {
        // setpriv becomes the program: same pid, no unsafe code of ours between fork and exec.
        let mut command = Command::new("setpriv");
        if self.drop_root
            && let Some((uid, gid)) = scratch::unprivileged()
        {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
        }
        command.arg("--pdeathsig").arg(self.death_signal).arg("--").arg(&self.path).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            nursery::spawn(command).with_context(|| format!("starting {}", self.path.display()))?;
        let output = Output::default();
        output.follow(child.stdout.take());
        output.follow(child.stderr.take());
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id fits i32")?);
        Ok(Process { name: self.name.clone(), pid, child: Mutex::new(child), output })
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it has not ended at the deadline.
    pub async fn run(&self, deadline: Duration) -> Result<(ExitStatus, String)> {
        let process = self.start()?;
        let status = process.exited(deadline).await;
        Ok((status, process.output.complete().await))
    }
}

/// A running process; killed with the value. When the test fails its last lines are printed.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    child: Mutex<Child>,
    output: Output,
}

impl Process {
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits for a line of its output that contains `text` and answers with it.
    ///
    /// # Panics
    /// At the deadline, or when the process ended without it, with the output so far.
    pub async fn line(&self, text: &str, deadline: Duration) -> String {
        let start = std::time::Instant::now();
        loop {
            let ended = self.status().is_some();
            if let Some(line) = self.output.find(text) {
                return line;
            }
            if ended && let Some(line) = self.output.settled().await.find(text) {
                return line;
            }
            assert!(!ended, "{} ended without saying {text:?}:\n{}", self.name, self.output());
            let waited = start.elapsed();
            assert!(
                waited < deadline,
                "{} did not say {text:?} in {deadline:?}:\n{}",
                self.name,
                self.output()
            );
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Its newest lines, of both streams.
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// None while it runs.
    pub fn status(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("a child that nobody else waits for can be asked")
    }

    /// Waits for its end, and for what it said last.
    ///
    /// # Panics
    /// When it still runs at the deadline.
    pub async fn exited(&self, deadline: Duration) -> ExitStatus {
        let status =
            eventually(deadline, format_args!("{} (pid {}) ends", self.name, self.pid), async || {
                self.status()
            })
            .await;
        self.output.settled().await;
        status
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill9(&self) {
        self.signal(Signal::SIGKILL);
        self.exited(Duration::from_secs(10)).await;
    }

    /// Asks it to end.
    pub fn term(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Freezes it, as a host that swaps or a virtual machine that is moved does.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn cont(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Nothing happens when it has ended: its number may be another's by now.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None)) {
            let _ = kill(self.pid, signal);
        }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child().wait();
        if std::thread::panicking() {
            self.print();
        }
    }
}

impl Process {
    #[expect(clippy::print_stderr, reason = "the story of a failed test")]
    fn print(&self) {
        eprintln!("--- {} (pid {}) said last:\n{}", self.name, self.pid, self.output());
    }
}

/// The newest lines of a process, bounded so that a chatty one does not fill the memory.
#[derive(Debug, Clone, Default)]
struct Output(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    newest: VecDeque<String>,
    dropped: usize,
    open: usize,
}

const KEPT_LINES: usize = 500;

impl Output {
    fn follow(&self, stream: Option<impl Read + Send + 'static>) {
        let Some(stream) = stream else { return };
        self.lines().open += 1;
        let output = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                output.push(String::from_utf8_lossy(&line).into_owned());
            }
            output.lines().open -= 1;
        });
    }

    fn push(&self, line: String) {
        let mut lines = self.lines();
        if lines.newest.len() == KEPT_LINES {
            lines.newest.pop_front();
            lines.dropped += 1;
        }
        lines.newest.push_back(line);
    }

    fn find(&self, text: &str) -> Option<String> {
        self.lines().newest.iter().find(|line| line.contains(text)).cloned()
    }

    fn text(&self) -> String {
        let lines = self.lines();
        let newest: Vec<&str> = lines.newest.iter().map(String::as_str).collect();
        match lines.dropped {
            0 => newest.join("\n"),
            n => format!("({n} lines before)\n{}", newest.join("\n")),
        }
    }

    /// Once the process has ended, its last lines may still be on their way. Grandchildren that
    /// inherited the pipe could hold it open for ever, hence the limit.
    async fn settled(&self) -> &Self {
        for _ in 0..100 {
            if self.lines().open == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self
    }

    async fn complete(&self) -> String {
        self.settled().await.text()
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
