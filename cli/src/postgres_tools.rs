//! PostgreSQL's programs as the machine has them installed. Nothing is downloaded.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::failure::Advice;

/// A program's path by major version.
pub fn find(program: &str) -> BTreeMap<u32, PathBuf> {
    // The folders of Debian, of Red Hat, and of Homebrew; then wherever PATH leads.
    let folders = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
    ];
    let packaged = folders.into_iter().flat_map(|(folder, prefix)| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path().join("bin"))
    });
    let path = env::var_os("PATH").unwrap_or_default();
    let mut by_major = BTreeMap::new();
    for dir in packaged.chain(env::split_paths(&path)) {
        // A link in PATH stands apart from what the program looks for beside it.
        if let Ok(path) = dir.join(program).canonicalize()
            && let Some(major) = version_of(&path)
        {
            by_major.entry(major).or_insert(path);
        }
    }
    by_major
}

/// A client program that understands a server: of its version or a later one.
pub fn client_for(program: &str, server_major: u32) -> Result<PathBuf> {
    let found = find(program);
    found.range(server_major..).next().map(|(_, path)| path.clone()).ok_or_else(|| {
        let installed = match found.last_key_value() {
            Some((newest, _)) => format!("installed is {newest}"),
            None => "none is installed".to_owned(),
        };
        Advice::new(
            format!("the database is PostgreSQL {server_major}, which needs {program} of that version; {installed}"),
            format!("install it (Debian, Ubuntu: apt-get install postgresql-client-{server_major})"),
        )
        .into()
    })
}

fn version_of(program: &Path) -> Option<u32> {
    if !program.is_file() {
        return None;
    }
    let said = Command::new(program).arg("--version").output().ok()?;
    major_of(&String::from_utf8_lossy(&said.stdout))
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
