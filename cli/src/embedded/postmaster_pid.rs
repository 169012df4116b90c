//! The file by which a server says that it runs: how a start after `kill -9` finds the server that
//! the killed process left behind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

/// A running server of our data directory.
#[derive(Clone, Debug)]
pub struct Running {
    pub pid: Pid,
    pub socket_dir: PathBuf,
    pub status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Starting,
    Ready,
    Stopping,
}

#[derive(Debug)]
pub enum Found {
    Running(Running),
    /// The file of a server that is gone, whose process id another program has now, or whose
    /// process nobody has buried. PostgreSQL itself would take that for a server and refuse to start.
    Stale,
    Nothing,
}

pub fn path(cluster: &Path) -> PathBuf {
    cluster.join("postmaster.pid")
}

pub fn find(cluster: &Path) -> Found {
    let Ok(text) = fs::read_to_string(path(cluster)) else { return Found::Nothing };
    let lines: Vec<&str> = text.lines().collect();
    let Some(pid) = lines.first().and_then(|line| line.trim().parse().ok()).map(Pid::from_raw) else {
        return Found::Nothing;
    };
    if kill(pid, None) == Err(Errno::ESRCH) {
        return Found::Nothing;
    }
    if !is_alive(pid) || !works_in(pid, cluster) {
        return Found::Stale;
    }
    let status = match lines.get(7).map(|line| line.trim()) {
        Some("ready") => Status::Ready,
        Some("stopping") => Status::Stopping,
        _ => Status::Starting,
    };
    let socket_dir = lines.get(4).map(PathBuf::from).unwrap_or_default();
    Found::Running(Running { pid, socket_dir, status })
}

/// A process that ended and that nobody has buried counts as gone.
pub fn is_alive(pid: Pid) -> bool {
    if kill(pid, None) == Err(Errno::ESRCH) {
        return false;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// A server's working directory is its cluster's. Where the system does not tell, its word holds.
fn works_in(pid: Pid, cluster: &Path) -> bool {
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) => cwd == cluster,
        Err(_) => !Path::new("/proc/self/cwd").exists(),
    }
}
