//! The installed PostgreSQL that the embedded server is run from.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{failure::Advice, postgres_tools};

/// The oldest release that the schema is tested with.
const OLDEST: u32 = 15;

/// One installed release of PostgreSQL's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    pub major: u32,
    pub dir: PathBuf,
}

impl Binaries {
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// One of each major version that is installed, newest first.
    pub fn installed() -> Vec<Self> {
        postgres_tools::find("postgres")
            .into_iter()
            .rev()
            .filter_map(|(major, server)| Some(Self { major, dir: server.parent().map(Path::to_owned)? }))
            .filter(|binaries| binaries.program("initdb").is_file())
            .collect()
    }

    /// The newest, if it is new enough.
    pub fn newest() -> Result<Self> {
        let installed = Self::installed();
        if let Some(newest) = installed.first().filter(|newest| newest.major >= OLDEST) {
            return Ok(newest.clone());
        }
        let found = installed.iter().map(|one| format!(" ({one} is too old)")).collect::<String>();
        Err(Advice::new(
            format!("PostgreSQL {OLDEST} or newer is not installed{found}, and none is configured"),
            "install it (Debian, Ubuntu: apt-get install postgresql), or use a database of your own with --database-url",
        )
        .into())
    }

    /// That of a given major version, for a data directory which that one made.
    pub fn of_major(major: u32) -> Option<Self> {
        Self::installed().into_iter().find(|installed| installed.major == major)
    }
}

impl fmt::Display for Binaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {} in {}", self.major, self.dir.display())
    }
}
