//! Files for their owner alone that are there whole or not at all.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// What becomes of a file, or a link, that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and publishing fails with `AlreadyExists`.
    Keep,
    Replace,
}

/// A file that has no name yet; gone unless it is published.
pub struct Draft {
    file: NamedTempFile,
    target: PathBuf,
}

impl Draft {
    pub fn of(target: &Path) -> io::Result<Self> {
        let file = tempfile::Builder::new()
            .prefix(".streamspace-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(folder(target))?;
        Ok(Self { file, target: target.to_owned() })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub fn write(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())
    }

    /// On the disk before it has its name: after a crash there is the file of before or of after.
    pub fn publish(self, existing: Existing) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        match existing {
            Existing::Keep => self.file.persist_noclobber(&self.target)?,
            Existing::Replace => self.file.persist(&self.target)?,
        };
        sync_folder(&self.target)
    }
}

pub fn write(target: &Path, text: &str, existing: Existing) -> io::Result<()> {
    let mut draft = Draft::of(target)?;
    draft.write(text)?;
    draft.publish(existing)
}

/// Puts on the disk which names its folder has.
pub fn sync_folder(target: &Path) -> io::Result<()> {
    File::open(folder(target))?.sync_all()
}

fn folder(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    #[test]
    fn what_replaces_an_open_file_or_a_link_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "old").expect("written");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("opened");
        symlink(&file, &link).expect("linked");

        for name in [&file, &link] {
            let kept = write(name, "new", Existing::Keep).expect_err("it is there");
            assert_eq!(kept.kind(), io::ErrorKind::AlreadyExists);
        }
        write(&link, "new", Existing::Replace).expect("replaced");
        assert_eq!(fs::read_to_string(&file).expect("read"), "old", "a link is not followed");
        write(&file, "new", Existing::Replace).expect("replaced");
        for name in [&file, &link] {
            let found = name.symlink_metadata().expect("there");
            assert!(found.is_file() && found.permissions().mode() & 0o777 == 0o600, "{found:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 2, "no draft is left");
    }
}
