//! Making links and mailing them, in the one order that leaves none lying about: the hash is committed,
//! then the mail leaves, and what was not taken is taken back.

use serde_json::json;
use sqlx::PgConnection;
use streamspace_common::Secret;
use streamspace_queue::{Attempt, Backoff, Done, Failure, Tx, minutes, seconds};
use tracing::warn;

pub(super) use super::model::Person;
use super::{
    mails::Link,
    model::{Ids, Purpose, Whom},
    store,
};
use crate::{
    audit::{self, Entry},
    mail::{Mail, Message},
    opaque::{Form, Hash},
};

/// Links of one purpose that a person gets in an hour.
const MOST_IN_AN_HOUR: i64 = 3;
/// Links of all purposes and people that one address gets in an hour.
const MOST_TO_AN_ADDRESS: i64 = 20;

// Of all kinds here. Somebody waits for the mail, so the first retry comes soon; a server that is down
// for some hours loses none.
pub(super) const QUEUE: &str = "mail";
pub(super) const TIMEOUT: std::time::Duration = minutes(5);
pub(super) const ATTEMPTS: i32 = 24;
pub(super) const BACKOFF: Backoff = Backoff { first: seconds(5), cap: minutes(15) };

/// Secrets that are in the database by their hashes.
pub(super) struct Made {
    secrets: Vec<Secret<String>>,
    hashes: Vec<Hash>,
}

/// Those who may get another link now. They are locked, so nobody else gives them one meanwhile.
pub(super) async fn within_limit(
    conn: &mut PgConnection,
    purpose: Purpose,
    people: Vec<Whom>,
) -> sqlx::Result<Vec<Whom>> {
    let enough = store::have_enough(conn, purpose, &people, MOST_IN_AN_HOUR, MOST_TO_AN_ADDRESS).await?;
    Ok(people.into_iter().filter(|whom| !enough.contains(&whom.user)).collect())
}

/// A link for each.
pub(super) async fn make(tx: &mut Tx, purpose: Purpose, people: &[Whom]) -> sqlx::Result<Made> {
    let secrets: Vec<_> = people.iter().map(|_| Form::LINK.make()).collect();
    let hashes: Vec<_> = secrets.iter().map(|secret| Form::LINK.hash_made(secret)).collect();
    store::insert(tx.conn().await?, purpose, people, &hashes).await?;
    for whom in people {
        let mailed = Entry::new("links.mail", "user", whom.user)
            .after(json!({ "purpose": purpose.as_str(), "email": whom.email }));
        audit::record_in(tx, whom.tenant, mailed).await?;
    }
    Ok(Made { secrets, hashes })
}

/// Mails a link to one person, if they still want it.
pub(super) async fn mail_one(
    mail: &Mail,
    attempt: &Attempt,
    ids: Ids,
    purpose: Purpose,
    wants: fn(&Person) -> bool,
    write: fn(&Link<'_>) -> Message,
) -> Result<Done, Failure> {
    let mut tx = attempt.begin();
    let conn = tx.conn().await?;
    let Some(person) = store::by_id(conn, ids.tenant, ids.user).await?.filter(wants) else {
        return Ok(Done::nothing());
    };
    let people = within_limit(conn, purpose, vec![person.whom]).await?;
    let [_] = people.as_slice() else {
        return Err(Failure::permanent(
            "this person or address got enough of these mails within the last hour",
        ));
    };
    let made = make(&mut tx, purpose, &people).await?;
    tx.commit().await?;
    let message = write(&made.links(purpose, mail, &people)[0]);
    made.send(mail, attempt, message).await
}

/// Gives a mail to the mailer, unless the attempt is to end.
pub(super) async fn hand_over(mail: &Mail, attempt: &Attempt, message: &Message) -> Result<(), Failure> {
    tokio::select! {
        sent = mail.mailer.send(message) => Ok(sent?),
        () = attempt.cancel.cancelled() => Err(Failure::Cancelled),
    }
}

impl Made {
    pub fn links<'a>(&self, purpose: Purpose, mail: &Mail, people: &'a [Whom]) -> Vec<Link<'a>> {
        let url = |secret| purpose.url(&mail.public_url, secret);
        people.iter().zip(self.secrets.iter().map(url)).collect()
    }

    /// Mails them. After a failure they are no more: the next attempt makes others, and those that
    /// nobody got do not count as given.
    pub async fn send(self, mail: &Mail, attempt: &Attempt, message: Message) -> Result<Done, Failure> {
        let sent = hand_over(mail, attempt, &message).await;
        if sent.is_err()
            && let Err(error) = self.take_back(attempt).await
        {
            warn!(error = %error, "links that were not mailed stay until they are too old");
        }
        sent.map(|()| Done::nothing())
    }

    async fn take_back(&self, attempt: &Attempt) -> sqlx::Result<()> {
        let mut tx = attempt.begin();
        store::delete(tx.conn().await?, &self.hashes).await?;
        tx.commit().await
    }
}
