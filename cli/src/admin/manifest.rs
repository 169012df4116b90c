//! What lies beside a backup: what it needs to be of use, and by what it is known to be whole.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::private_file::{self, Draft};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Of the release that made it.
    pub version: String,
    /// The newest migration in it.
    pub schema: i64,
    pub made_at: jiff::Timestamp,
    pub postgresql: u32,
    /// Which master key opens its secrets. The key is not in the backup.
    pub master_key_id: Option<String>,
    pub sha256: String,
}

impl Manifest {
    pub fn path(backup: &Path) -> PathBuf {
        let mut path = backup.as_os_str().to_owned();
        path.push(".json");
        path.into()
    }

    pub fn draft(&self, backup: &Path) -> Result<Draft> {
        let path = Self::path(backup);
        let text = serde_json::to_string_pretty(self).context("a manifest is plain JSON")? + "\n";
        let drafted = Draft::of(&path).and_then(|mut draft| draft.write(&text).map(|()| draft));
        drafted.with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn remove(backup: &Path) -> Result<()> {
        let path = Self::path(backup);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.and_then(|()| private_file::sync_folder(&path)),
        }
        .with_context(|| format!("cannot remove {}", path.display()))
    }

    /// None if the file is alone.
    pub fn read(backup: &Path) -> Result<Option<Self>> {
        let path = Self::path(backup);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let manifest = serde_json::from_str(&text);
                manifest.map(Some).with_context(|| format!("{} is not a backup's manifest", path.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// Of a file's content, in hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let context = || format!("cannot read {}", path.display());
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).with_context(context)?);
    let mut hasher = Sha256::new();
    loop {
        let read = file.fill_buf().with_context(context)?;
        if read.is_empty() {
            break;
        }
        hasher.update(read);
        let length = read.len();
        file.consume(length);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
