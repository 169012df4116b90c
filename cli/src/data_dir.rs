//! The directory in which `streamspace up` keeps everything of one installation.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use crate::failure::Advice;

#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

/// Held while a process uses the directory; the kernel releases it however that process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl DataDir {
    /// Makes the directory, and what leads to it, where they are missing. Only its owner may list
    /// it; root's may be passed through, because PostgreSQL then runs as another user.
    pub fn create(path: &Path) -> Result<Self> {
        let context = || format!("cannot make the data directory {}", path.display());
        let missing: Vec<_> = path.ancestors().take_while(|dir| !dir.exists()).collect();
        for dir in missing.iter().rev().filter(|dir| !dir.as_os_str().is_empty()) {
            DirBuilder::new().mode(0o755).create(dir).with_context(context)?;
        }
        let path = path.canonicalize().with_context(context)?;
        // One that was there is somebody's, with the rights that they gave it.
        if !missing.is_empty() {
            let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).with_context(context)?;
        }
        let metadata = path.metadata().with_context(context)?;
        if !metadata.is_dir() {
            return Err(Advice::new(
                format!("{} is not a directory", path.display()),
                "choose another one with --data-dir",
            )
            .into());
        }
        if metadata.uid() != geteuid().as_raw() {
            return Err(Advice::new(
                format!("the data directory {} belongs to another user", path.display()),
                "run the command as its owner, or choose another one with --data-dir",
            )
            .into());
        }
        Ok(Self(path))
    }

    /// The directory of an installation that was started before.
    pub fn open(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(|error| {
            anyhow::Error::new(error).context(Advice::new(
                format!("there is no data directory {}", path.display()),
                "name the one that `streamspace up` printed with --data-dir, or an external database with --database-url",
            ))
        })?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Refuses when another process has it.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.join("lock");
        let context = || format!("cannot lock the data directory with {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(context)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).ok();
                return Err(Advice::new(
                    format!("the data directory {} is in use by process {}", self.0.display(), holder.trim()),
                    "stop that one first, or choose another directory with --data-dir",
                )
                .into());
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(context),
        }
        file.set_len(0).with_context(context)?;
        file.rewind().with_context(context)?;
        writeln!(file, "{}", std::process::id()).with_context(context)?;
        Ok(Lock { _file: file })
    }
}
