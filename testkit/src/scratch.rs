//! Directories of a test run.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, User};

use crate::nursery;

/// A directory of its own, removed with the value, at the latest when the test run ends.
#[derive(Debug)]
pub struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    pub fn new(name: &str) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(&run().path)
            .context("making a scratch directory")?;
        Ok(Self { dir })
    }

    /// A directory that servers which refuse to run as root may write to.
    pub fn for_servers(name: &str) -> Result<Self> {
        let scratch = Self::new(name)?;
        if let Some((uid, gid)) = unprivileged() {
            chown(scratch.path(), Some(uid.as_raw()), Some(gid.as_raw()))
                .context("giving a directory away")?;
        }
        Ok(scratch)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Whom servers run as when we are root: `postgres` where it exists, else `nobody`.
pub(crate) fn unprivileged() -> Option<(Uid, Gid)> {
    if !Uid::effective().is_root() {
        return None;
    }
    let known = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
    Some(known.map_or((Uid::from_raw(65534), Gid::from_raw(65534)), |user| (user.uid, user.gid)))
}

struct Run {
    path: PathBuf,
    /// Held open for as long as this process lives; its end is what the watchdog waits for.
    _alive: Option<ChildStdin>,
}

fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("streamspace-test-{}", std::process::id()));
        // One that is there was left by a process of the same number, long gone.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o711))
            .expect("we own what we just made");
        let alive = watchdog(&path).expect("sh is installed");
        Run { path, _alive: alive }
    })
}

/// A shell that outlives us by a moment and removes the directory: statics are not dropped at exit,
/// and nothing is after `kill -9`. It tries for a while because servers that die with us still write.
fn watchdog(path: &Path) -> io::Result<Option<ChildStdin>> {
    const SCRIPT: &str = r#"trap '' INT TERM HUP; cat >/dev/null
        for i in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$0" 2>/dev/null && exit; sleep 0.3; done"#;
    let mut command = Command::new("sh");
    command.arg("-c").arg(SCRIPT).arg(path).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(nursery::spawn(command)?.stdin.take())
}
