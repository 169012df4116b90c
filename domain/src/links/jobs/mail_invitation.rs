use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamspace_queue::{Attempt, Backoff, Done, Failure, Job, Unique};

use crate::{
    links::{
        mails,
        model::{Ids, Purpose},
        post,
    },
    mail::Mail,
};

/// Mails an invitation to somebody who has no way in yet.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct MailInvitation(pub(crate) Ids);

impl Job for MailInvitation {
    const KIND: &'static str = "links.mail_invitation";
    const QUEUE: &'static str = post::QUEUE;
    const TIMEOUT: Duration = post::TIMEOUT;
    const ATTEMPTS: i32 = post::ATTEMPTS;
    const BACKOFF: Backoff = post::BACKOFF;
    type Ctx = Mail;

    fn unique(&self) -> Option<Unique> {
        Some(Unique::while_waiting(self.0.user.to_string()))
    }

    async fn run(self, mail: &Mail, attempt: &Attempt) -> Result<Done, Failure> {
        let wants = |person: &post::Person| person.waits;
        post::mail_one(mail, attempt, self.0, Purpose::Invitation, wants, mails::invitation).await
    }
}
