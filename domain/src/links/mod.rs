//! Links that are mailed, each good for one thing once: a new password, an invitation, a proof that an
//! address is its person's.
//!
//! A link is made by the job that mails it; nothing but the mail knows it, and the database has its hash.
//! It is good for as long as the address to which it went is the person's, and the person may sign in.
//! What somebody does with it is done as that person.

mod error;
pub mod jobs;
mod mails;
mod model;
mod post;
mod store;

use serde_json::json;
use streamspace_common::{JobId, Secret, TenantId, UserId};
use streamspace_queue::{Enqueued, Queue, Request, Tx, enqueue};

pub use self::{
    error::Error,
    model::{Acceptance, Invitation, NewInvitation},
};
use self::{
    jobs::{MailInvitation, MailMoved, MailReset, MailVerification},
    model::{Ids, Purpose},
    store::Found,
};
use crate::{
    audit::{self, Entry},
    identity::{self, ChangeUser, NewUser, Permission, Require, User},
    opaque::{Form, Hash},
    sign_in::{self, Client, Method, SignIns, Welcome},
};

/// Asks for a mail to whoever has an address. Nothing is looked up, so neither what this answers nor the
/// time that it takes tells whether anybody has.
pub async fn request_reset(tx: &mut Tx, email: String, tenant: Option<String>) -> Result<(), Error> {
    enqueue(tx, MailReset { email: email.trim().to_owned(), tenant }).await?;
    Ok(())
}

/// Asks somebody whether the address that they have is theirs.
pub(crate) async fn ask_to_verify(
    tx: &mut Tx,
    user: &User,
) -> Result<Enqueued, streamspace_queue::EnqueueError> {
    enqueue(tx, MailVerification(Ids { tenant: user.tenant, user: user.id })).await
}

/// Whoever gets another address is asked whether it is theirs; the one that was is told, if it was theirs.
pub(crate) async fn moved(
    tx: &mut Tx,
    before: &User,
    after: &User,
) -> Result<(), streamspace_queue::EnqueueError> {
    ask_to_verify(tx, after).await?;
    if before.email_verified {
        enqueue(tx, MailMoved { tenant: before.tenant, email: before.email.clone() }).await?;
    }
    Ok(())
}

/// No link that somebody was mailed lets them in any more.
pub(crate) async fn void(tx: &mut Tx, tenant: TenantId, user: UserId) -> sqlx::Result<()> {
    store::void(tx.conn().await?, tenant, user).await
}

/// Invites somebody into one's tenant: makes the person, who gets in by the link that is mailed. Whoever
/// has no way in yet is invited again.
pub async fn invite(tx: &mut Tx, new: NewInvitation) -> Result<(User, JobId), Error> {
    tx.require(Permission::UsersManage).map_err(identity::Error::from)?;
    identity::may_manage(tx.actor(), new.role)?;
    let NewInvitation { email, name, username, role } = new;
    let user = match identity::waiting(tx, &email).await? {
        Some(user) => {
            let change = ChangeUser { name, username, role: Some(role), ..ChangeUser::default() };
            identity::change_user(tx, user.id, change).await?
        }
        None => {
            let name = name.unwrap_or_else(|| email.clone());
            let new = NewUser { email, username, name, role, password_hash: None };
            identity::create_user(tx, new).await?
        }
    };
    let mailed = enqueue(tx, MailInvitation(Ids { tenant: user.tenant, user: user.id })).await?;
    let invited = Entry::new("users.invite", "user", user.id).after(json!({ "email": user.email }));
    audit::record(tx, invited).await?;
    Ok((user, mailed.id))
}

/// What people do who come with a link. Clones share it.
#[derive(Clone)]
pub struct Links {
    queue: Queue,
    sign_ins: SignIns,
}

impl Links {
    pub fn new(queue: Queue, sign_ins: SignIns) -> Self {
        Self { queue, sign_ins }
    }

    /// What an invitation says, to whoever has its link. Looking uses nothing up.
    pub async fn invitation(&self, token: &str) -> Result<Invitation, Error> {
        let (_, found) = self.find(token, Purpose::Invitation).await?;
        let mut conn = self.queue.read().await?;
        let (user, tenant) = identity::of_sign_in(&mut conn, found.tenant, found.user).await?;
        Ok(Invitation {
            tenant_name: tenant.name,
            email: user.email,
            name: user.name,
            role: user.role,
            expires_at: found.expires_at,
        })
    }

    /// Accepts an invitation with a password, and signs in.
    pub async fn accept(
        &self,
        request: &Request,
        token: &str,
        acceptance: Acceptance,
        client: &Client,
    ) -> Result<Welcome, Error> {
        let (mut tx, user) =
            self.choose_password(request, token, Purpose::Invitation, acceptance.password).await?;
        if acceptance.name.is_some() {
            identity::change_profile(&mut tx, acceptance.name, None).await?;
        }
        let (user, tenant) = identity::of_sign_in(tx.conn().await?, user.tenant, user.id).await?;
        let admitted = self.sign_ins.admit(&mut tx, user, tenant, Method::Invitation, client).await?;
        tx.commit().await?;
        Ok(self.sign_ins.welcome(admitted).await?)
    }

    /// Puts a new password in place of a forgotten one, ends every sign-in and opens the account. Whoever
    /// has the link has the address.
    pub async fn reset_password(
        &self,
        request: &Request,
        token: &str,
        password: Secret<String>,
    ) -> Result<UserId, Error> {
        let (mut tx, user) = self.choose_password(request, token, Purpose::Reset, password).await?;
        // Whoever has the mailbox has not shown the second factor: its guesses stay counted.
        if !user.mfa_enabled {
            identity::unlock(&mut tx, &user).await?;
        }
        tx.commit().await?;
        Ok(user.id)
    }

    /// Shows that an address is its person's.
    pub async fn verify_email(&self, request: &Request, token: &str) -> Result<UserId, Error> {
        let (hash, found) = self.find(token, Purpose::Email).await?;
        let user = self.person(&found).await?;
        let mut tx = self.sign_ins.begin_as(&user, request.clone());
        take(&mut tx, &user, &hash, Purpose::Email).await?;
        identity::verify_email(&mut tx, &user).await?;
        tx.commit().await?;
        Ok(user.id)
    }

    /// Everything but the commit. The password is hashed while no connection is held, and for nobody whose
    /// link is not good; which of many that come at once it is good for is decided after that.
    async fn choose_password(
        &self,
        request: &Request,
        token: &str,
        purpose: Purpose,
        password: Secret<String>,
    ) -> Result<(Tx, User), Error> {
        let (link, found) = self.find(token, purpose).await?;
        let user = self.person(&found).await?;
        let hash = self.sign_ins.hash("/password", password, &[&user.email, &user.username]).await?;
        let mut tx = self.sign_ins.begin_as(&user, request.clone());
        take(&mut tx, &user, &link, purpose).await?;
        sign_in::set_password(&mut tx, user.tenant, user.id, &hash, None, None).await?;
        identity::verify_email(&mut tx, &user).await?;
        Ok((tx, user))
    }

    async fn find(&self, token: &str, purpose: Purpose) -> Result<(Hash, Found), Error> {
        let hash = Form::LINK.hash(token).ok_or(Error::Unknown)?;
        let found = store::find(&mut *self.queue.read().await?, &hash, purpose).await?;
        let found = found.ok_or(Error::Unknown)?;
        if found.good { Ok((hash, found)) } else { Err(Error::Over) }
    }

    async fn person(&self, found: &Found) -> Result<User, Error> {
        Ok(identity::person(&mut *self.queue.read().await?, found.tenant, found.user).await?)
    }
}

/// Uses a link in its person's transaction.
async fn take(tx: &mut Tx, user: &User, hash: &Hash, purpose: Purpose) -> Result<(), Error> {
    if !store::take(tx.conn().await?, hash, purpose).await? {
        return Err(Error::Over);
    }
    let used = Entry::new("links.use", "user", user.id).after(json!({ "purpose": purpose.as_str() }));
    Ok(audit::record(tx, used).await?)
}
