//! What the first start makes: a tenant, its owner, and the key by which the owner gets in.

use std::{
    fs::{self, OpenOptions},
    io::{IsTerminal, Write, stdout},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use streamspace_common::{Actor, Config, PLATFORM, Secret};
use streamspace_domain::identity;
use streamspace_queue::{Queue, tx::Request};

pub const KEY_FILE: &str = "admin-key";

/// What is said of the administrator's key.
pub struct AdminKey {
    pub file: PathBuf,
    /// Only at the first start, and only for a person's eyes.
    pub shown: Option<Secret<String>>,
}

/// Makes them unless somebody lives there already. `None` if the key's file is gone by now.
pub async fn prepare(queue: &Queue, config: &Config) -> Result<Option<AdminKey>> {
    let file = config.server.data_dir.join(KEY_FILE);
    let mut tx = queue.begin(Actor::system(PLATFORM), Request::default());
    let made = identity::first_start(&mut tx, config.limits.api_key_per_hour)
        .await
        .context("the first tenant could not be made")?;
    let Some(made) = made else {
        tx.rollback().await.ok();
        return Ok(file.exists().then_some(AdminKey { file, shown: None }));
    };
    // Before the commit: the database keeps a hash, so a key that is not written down is lost.
    write(&file, &made.secret)?;
    tx.commit().await.context("the first tenant could not be made")?;
    Ok(Some(AdminKey { file, shown: stdout().is_terminal().then_some(made.secret) }))
}

/// Whole or not at all, for its owner alone.
fn write(file: &Path, key: &Secret<String>) -> Result<()> {
    let context = || format!("cannot write {}", file.display());
    let draft = file.with_added_extension("new");
    fs::remove_file(&draft).ok();
    let mut written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).with_context(context)?;
    writeln!(written, "{}", key.expose()).with_context(context)?;
    written.sync_all().with_context(context)?;
    fs::rename(&draft, file).with_context(context)
}
