//! What the first start makes: a tenant, its owner, and the key by which the owner gets in.

use std::{
    io::{IsTerminal, stdout},
    path::PathBuf,
};

use anyhow::{Context, Result};
use streamspace_common::{Actor, Config, PLATFORM, Secret};
use streamspace_domain::identity;
use streamspace_queue::{Queue, tx::Request};

use crate::private_file::{self, Existing};

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
    let text = Secret::new(format!("{}\n", made.secret.expose()));
    private_file::write(&file, text.expose(), Existing::Replace)
        .with_context(|| format!("cannot write {}", file.display()))?;
    tx.commit().await.context("the first tenant could not be made")?;
    Ok(Some(AdminKey { file, shown: stdout().is_terminal().then_some(made.secret) }))
}
