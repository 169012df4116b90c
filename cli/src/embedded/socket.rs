//! Where the server's only socket lies: a directory that nobody else can enter.

use std::{
    env,
    ffi::OsStr,
    fs::{self, DirBuilder, Permissions},
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use super::server_user::ServerUser;
use crate::{data_dir::DataDir, failure::Advice};

/// A socket's address ends at 107 bytes; the server appends this name to the directory's.
const LONGEST_DIR: usize = 107 - "/.s.PGSQL.5432".len();

pub fn prepare(data_dir: &DataDir, user: &ServerUser) -> Result<PathBuf> {
    let inside = data_dir.join("run");
    let dir = if is_usable(&inside) { inside } else { outside(data_dir) };
    if let Some(parent) = dir.parent().filter(|parent| !parent.exists()) {
        DirBuilder::new()
            .mode(0o755)
            .create(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
    }
    match DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => user.own(&dir)?,
        // In a folder where anybody may write, the name may have been taken by somebody else.
        Err(_) if dir.symlink_metadata().is_ok_and(|found| found.is_dir()) && user.owns(&dir) => {}
        Err(error) => {
            return Err(error).context(Advice::new(
                format!("cannot make the directory {} for PostgreSQL's socket", dir.display()),
                "remove what has this name, or choose a --data-dir with a shorter path",
            ));
        }
    }
    fs::set_permissions(&dir, Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close {} to others", dir.display()))?;
    Ok(dir)
}

/// Removes the socket of a server that is gone. Its lock names a process id, which PostgreSQL would
/// believe although another program may have it now; the directory is ours alone.
pub fn remove_left_over(dir: &Path) {
    for name in [".s.PGSQL.5432", ".s.PGSQL.5432.lock"] {
        fs::remove_file(dir.join(name)).ok();
    }
}

/// Short enough, and free of what separates or quotes in the server's and its tools' settings.
fn is_usable(dir: &Path) -> bool {
    let bytes = dir.as_os_str().as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(byte);
    bytes.len() <= LONGEST_DIR && bytes.iter().all(plain)
}

/// Elsewhere, under a name that the same data directory finds again.
fn outside(data_dir: &DataDir) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    data_dir.path().hash(&mut hasher);
    let hash = hasher.finish();
    if geteuid().is_root() {
        return Path::new("/run/streamspace").join(format!("{hash:016x}"));
    }
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    let name = format!("streamspace-{hash:016x}");
    runtime
        .map(|dir| dir.join(&name))
        .filter(|dir| is_usable(dir))
        .unwrap_or_else(|| Path::new("/tmp").join(OsStr::new(&format!("{name}-{}", geteuid()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_odd_paths_do_not_hold_the_socket() {
        assert!(is_usable(Path::new("/var/lib/streamspace/run")));
        assert!(is_usable(Path::new(&format!("/{}", "a".repeat(LONGEST_DIR - 1)))));
        assert!(!is_usable(Path::new(&format!("/{}", "a".repeat(LONGEST_DIR)))));
        for odd in ["/with space/run", "/a,b/run", "/quo'te/run", "/üb/run", "/per%cent/run"] {
            assert!(!is_usable(Path::new(odd)), "{odd}");
        }
    }
}
