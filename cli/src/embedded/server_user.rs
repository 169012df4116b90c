//! Whom PostgreSQL runs as. It refuses root, so root's server runs as a user with fewer rights.

use std::{
    fs::File,
    os::unix::fs::{MetadataExt, chown, fchown},
    path::Path,
};

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, User, geteuid};
use tokio::process::Command;

use crate::failure::Advice;

#[derive(Clone, Debug)]
pub struct ServerUser {
    pub name: String,
    uid: Uid,
    gid: Gid,
    /// We are root, and it is somebody else.
    switch: bool,
}

impl ServerUser {
    pub fn find() -> Result<Self> {
        let own = geteuid();
        if !own.is_root() {
            let user = User::from_uid(own).ok().flatten().ok_or_else(|| {
                Advice::new(
                    format!("user id {own} has no name, and PostgreSQL does not run as a user without one"),
                    "add the id to /etc/passwd, or use a database of your own with --database-url",
                )
            })?;
            return Ok(Self { name: user.name, uid: own, gid: user.gid, switch: false });
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten().filter(|user| !user.uid.is_root()))
            .map(|user| Self { name: user.name, uid: user.uid, gid: user.gid, switch: true })
            .ok_or_else(|| {
                Advice::new(
                    "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as",
                    "add one: useradd --system postgres",
                )
                .into()
            })
    }

    /// The name of whoever runs this program: the other side of the server's socket.
    pub fn client_name(&self) -> &str {
        if self.switch { "root" } else { &self.name }
    }

    pub fn is_other(&self) -> bool {
        self.switch
    }

    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Nothing of the caller's environment (PGDATA, PGOPTIONS, LC_ALL, …) reaches the server.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_MESSAGES", "C");
        if self.switch {
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
        command
    }

    pub fn own(&self, path: &Path) -> Result<()> {
        if self.switch {
            chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
                .with_context(|| format!("cannot give {} to the user {}", path.display(), self.name))?;
        }
        Ok(())
    }

    pub fn own_file(&self, file: &File) -> Result<()> {
        if self.switch {
            fchown(file, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
                .with_context(|| format!("cannot give a file to the user {}", self.name))?;
        }
        Ok(())
    }

    pub fn owns(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|metadata| metadata.uid() == self.uid.as_raw())
    }

    /// Names the directory that stops the server from reaching its own, if one does.
    pub async fn check_reach(&self, dir: &Path) -> Result<()> {
        if !self.switch {
            return Ok(());
        }
        // The kernel's word on it: a child enters the directory after giving up root.
        let entered = self.command(Path::new("/bin/true")).current_dir(dir).status().await;
        if entered.is_ok_and(|status| status.success()) {
            return Ok(());
        }
        let closed = dir
            .ancestors()
            .filter(|dir| dir.metadata().is_ok_and(|m| m.mode() & 0o001 == 0 && m.uid() != self.uid.as_raw()))
            .last()
            .unwrap_or(dir)
            .display();
        Err(Advice::new(
            format!("PostgreSQL runs as the user {} here, which may not enter {closed}", self.name),
            format!("choose another --data-dir, such as /var/lib/streamspace, or: chmod o+x {closed}"),
        )
        .into())
    }
}
