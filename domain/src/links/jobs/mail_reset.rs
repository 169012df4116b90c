use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamspace_queue::{Attempt, Backoff, Done, Failure, Job};

use crate::{
    links::{mails, model::Purpose, post, store},
    mail::Mail,
};

/// Tenants for which one mail has a link.
const MOST_TENANTS: i64 = 8;

/// Mails links for a new password to whoever has an address, one for each tenant. It is enqueued
/// whether anybody has it or not: whoever asked can't tell.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailReset {
    pub(crate) email: String,
    /// A slug.
    pub(crate) tenant: Option<String>,
}

impl Job for MailReset {
    const KIND: &'static str = "links.mail_reset";
    const QUEUE: &'static str = post::QUEUE;
    const TIMEOUT: Duration = post::TIMEOUT;
    const ATTEMPTS: i32 = post::ATTEMPTS;
    const BACKOFF: Backoff = post::BACKOFF;
    type Ctx = Mail;

    async fn run(self, mail: &Mail, attempt: &Attempt) -> Result<Done, Failure> {
        let mut tx = attempt.begin();
        let conn = tx.conn().await?;
        let people = store::by_email(conn, &self.email, self.tenant.as_deref(), MOST_TENANTS).await?;
        let people = post::within_limit(conn, Purpose::Reset, people).await?;
        // As it is stored: what was typed may look the same and be another's.
        let Some(to) = people.first().map(|whom| whom.email.clone()) else {
            return Ok(Done::nothing());
        };
        let made = post::make(&mut tx, Purpose::Reset, &people).await?;
        tx.commit().await?;
        let message = mails::reset(&to, &made.links(Purpose::Reset, mail, &people));
        made.send(mail, attempt, message).await
    }
}
