//! How mail leaves: over SMTP, or, where no server is configured, into a folder.

mod folder;
mod letter;
mod smtp;

use std::sync::Arc;

use streamspace_common::Config;
use streamspace_domain::mail::Mailer;
use tracing::warn;

pub use self::{
    folder::Folder,
    smtp::{Options, Smtp},
};

/// What of the configuration mail cannot be sent with.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {message}")]
pub struct Unusable {
    pub key: &'static str,
    pub message: String,
}

/// The mailer that is configured.
///
/// # Errors
/// When no mail could ever leave with this configuration.
pub fn of_config(config: &Config) -> Result<Arc<dyn Mailer>, Unusable> {
    if config.mail.host.is_some() {
        let named = config.server.public_url.as_ref().and_then(|url| url.domain());
        let options = Options { name: named.map(str::to_owned), ..Options::default() };
        return Ok(Arc::new(Smtp::new(&config.mail, options)?));
    }
    let dir = config.server.data_dir.join("mail");
    warn!("mail reaches nobody: no mail.host is configured, so it is written into {}", dir.display());
    Ok(Arc::new(Folder::new(dir, &config.mail.from)?))
}
