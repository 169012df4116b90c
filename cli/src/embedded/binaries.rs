//! PostgreSQL as the machine has it installed. Nothing is downloaded.

use std::{
    collections::BTreeMap,
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::failure::Advice;

/// The oldest release that the schema is tested with.
const OLDEST: u32 = 15;

/// One installed release of PostgreSQL.
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
        // The folders of Debian, of Red Hat, and of Homebrew; then wherever PATH leads.
        let folders = ["/usr/lib/postgresql", "/usr", "/opt/homebrew/opt", "/usr/local/opt"];
        let packaged = folders.into_iter().flat_map(|folder| {
            let mut found: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
            found.retain(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                folder == "/usr/lib/postgresql"
                    || name.starts_with("pgsql-")
                    || name.starts_with("postgresql@")
            });
            found.into_iter().map(|entry| entry.path().join("bin"))
        });
        let path = env::var_os("PATH").unwrap_or_default();
        let mut by_major = BTreeMap::new();
        for dir in packaged.chain(env::split_paths(&path)) {
            if let Some(found) = Self::at(&dir) {
                by_major.entry(found.major).or_insert(found);
            }
        }
        by_major.into_values().rev().collect()
    }

    fn at(dir: &Path) -> Option<Self> {
        let server = dir.join("postgres");
        if !dir.join("initdb").exists() || !server.exists() {
            return None;
        }
        let said = Command::new(&server).arg("--version").output().ok()?;
        let major = major_of(&String::from_utf8_lossy(&said.stdout))?;
        // A link in PATH stands apart from the libraries that initdb looks for beside it.
        let dir = server.canonicalize().ok()?.parent()?.to_owned();
        Some(Self { major, dir })
    }

    /// The newest that is new enough.
    pub fn newest() -> Result<Self> {
        let installed = Self::installed();
        if let Some(newest) = installed.first().filter(|newest| newest.major >= OLDEST) {
            return Ok(newest.clone());
        }
        let found = installed.iter().map(|one| format!(" {one} is too old;")).collect::<String>();
        Err(Advice::new(
            format!("PostgreSQL {OLDEST} or newer is not installed;{found} `streamspace up` brings none"),
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

/// From `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` or `… 18beta1`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(2)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_major_version_of_releases_and_betas() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("something else"), None);
    }
}
