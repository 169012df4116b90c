//! What the first start makes: a tenant, its owner, and the key and the password by which the owner gets in.

use std::{
    io::{IsTerminal, stdout},
    path::PathBuf,
};

use anyhow::{Context, Result};
use streamspace_common::{Actor, Config, PLATFORM, Secret};
use streamspace_domain::{identity, sign_in::Passwords};
use streamspace_queue::{Queue, tx::Request};

use crate::private_file::{self, Existing};

pub const KEY_FILE: &str = "admin-key";
/// Beside it: the owner's address, and the password of the first start.
pub const PASSWORD_FILE: &str = "admin-password";

/// What is said of the administrator's key.
pub struct AdminKey {
    pub file: PathBuf,
    /// If it is still there: who has changed the password may remove it.
    pub password_file: Option<PathBuf>,
    /// Only at the first start, and only for a person's eyes.
    pub shown: Option<Shown>,
}

pub struct Shown {
    pub key: Secret<String>,
    pub email: String,
    pub password: Secret<String>,
}

/// Makes them unless somebody lives there already. `None` if the key's file is gone by now.
pub async fn prepare(queue: &Queue, config: &Config) -> Result<Option<AdminKey>> {
    let file = config.server.data_dir.join(KEY_FILE);
    let password_file = config.server.data_dir.join(PASSWORD_FILE);
    let passwords = Passwords::new(&config.auth);
    let mut tx = queue.begin(Actor::system(PLATFORM), Request::default());
    let made = identity::first_start(&mut tx, config.limits.api_key_per_hour, &passwords)
        .await
        .context("the first tenant could not be made")?;
    let Some(made) = made else {
        tx.rollback().await.ok();
        let password_file = password_file.exists().then_some(password_file);
        return Ok(file.exists().then_some(AdminKey { file, password_file, shown: None }));
    };
    // Before the commit: the database keeps hashes, so what is not written down is lost.
    let key = Secret::new(format!("{}\n", made.secret.expose()));
    let password = Secret::new(format!("{}\n{}\n", made.owner.email, made.password.expose()));
    for (path, text) in [(&file, key), (&password_file, password)] {
        private_file::write(path, text.expose(), Existing::Replace)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    tx.commit().await.context("the first tenant could not be made")?;
    let shown = Shown { key: made.secret, email: made.owner.email, password: made.password };
    let shown = stdout().is_terminal().then_some(shown);
    Ok(Some(AdminKey { file, password_file: Some(password_file), shown }))
}
