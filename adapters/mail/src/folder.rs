//! Mail as files, for whoever has no mail server: a person opens them and follows the link.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use futures::{FutureExt, future::BoxFuture};
use streamspace_common::config::Sender;
use streamspace_domain::mail::{Error, Mailer, Message};
use tokio::task::spawn_blocking;
use tracing::warn;
use uuid::Uuid;

use crate::{Unusable, letter::Letters};

/// Writes each mail into a file of its own, which is there whole or not at all and is its owner's
/// alone: the links in it let in whoever reads it.
#[derive(Clone, Debug)]
pub struct Folder {
    dir: PathBuf,
    letters: Letters,
}

impl Folder {
    pub fn new(dir: PathBuf, from: &Sender) -> Result<Self, Unusable> {
        Ok(Self { dir, letters: Letters::new(from)? })
    }
}

impl Mailer for Folder {
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let letter = self.letters.write(message)?.formatted();
            let dir = self.dir.clone();
            let written = spawn_blocking(move || write(&dir, &letter)).await.map_err(io::Error::other);
            written.flatten().map_err(|error| {
                // Where, is the operator's to know; what a job says, its tenant reads.
                warn!(error = %error, "mail can't be written into {}", self.dir.display());
                Error::Unavailable(format!("it can't be written: {}", error.kind()))
            })
        }
        .boxed()
    }
}

/// The names are in the order of time.
fn write(dir: &Path, letter: &[u8]) -> io::Result<()> {
    if !fs::exists(dir)? {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut file = tempfile::Builder::new()
        .prefix(".unfinished-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(dir)?;
    file.write_all(letter)?;
    file.persist_noclobber(dir.join(format!("{}.eml", Uuid::now_v7())))?;
    Ok(())
}
