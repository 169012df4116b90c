use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamspace_common::TenantId;
use streamspace_queue::{Attempt, Backoff, Done, Failure, Job};

use crate::{
    identity,
    links::{mails, post},
    mail::Mail,
};

/// Tells whoever has the address that an account had that it has another one now: they may not know.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailMoved {
    pub(crate) tenant: TenantId,
    /// The one of before.
    pub(crate) email: String,
}

impl Job for MailMoved {
    const KIND: &'static str = "links.mail_moved";
    const QUEUE: &'static str = post::QUEUE;
    const TIMEOUT: Duration = post::TIMEOUT;
    const ATTEMPTS: i32 = post::ATTEMPTS;
    const BACKOFF: Backoff = post::BACKOFF;
    type Ctx = Mail;

    async fn run(self, mail: &Mail, attempt: &Attempt) -> Result<Done, Failure> {
        let mut tx = attempt.begin();
        let tenant = identity::tenant_of(tx.conn().await?, self.tenant).await?;
        tx.rollback().await?;
        post::hand_over(mail, attempt, &mails::moved(&self.email, &tenant.name)).await?;
        Ok(Done::nothing())
    }
}
