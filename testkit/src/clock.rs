//! Host clocks that lie.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::Scratch;

/// The wall clock of the processes that are started with it, by libfaketime. It can jump while they
/// run; their monotonic clock goes on undisturbed.
#[derive(Debug)]
pub struct HostClock {
    library: PathBuf,
    /// Read by libfaketime at every question for the time.
    scratch: Scratch,
}

impl HostClock {
    /// A clock that is right until it jumps.
    pub fn new() -> Result<Self> {
        let clock = Self { library: library()?, scratch: Scratch::new("clock")? };
        clock.jump(0)?;
        Ok(clock)
    }

    /// Sets it to the true time plus `seconds`.
    pub fn jump(&self, seconds: i64) -> Result<()> {
        // Replaced as a whole, so that no reader sees half a number.
        let file = self.file();
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        std::fs::rename(&new, &file).context("moving the clock")
    }

    pub(crate) fn env(&self) -> [(&'static str, PathBuf); 5] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()), // its name in older releases
        ]
    }

    fn file(&self) -> PathBuf {
        self.scratch.path().join("offset")
    }
}

fn library() -> Result<PathBuf> {
    for dir in ["/usr/lib", "/usr/lib64"] {
        let mut places: Vec<PathBuf> = vec![PathBuf::from(dir)];
        places.extend(std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()));
        let found = places
            .into_iter()
            .map(|place| place.join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.exists());
        if let Some(path) = found {
            return Ok(path);
        }
    }
    bail!("libfaketimeMT.so.1 is not installed (Debian package `libfaketime`)")
}
