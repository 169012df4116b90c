//! How people show who they are, and go on showing it.
//!
//! A sign-in begins with a password (and a second factor), a mailed link or another provider's word, and
//! goes on by refresh tokens or by a browser's cookie; its row is it, and what ends it deletes the row.
//! Access tokens and cookies are looked up by [`crate::callers`].
//!
//! A password is hashed while no connection is held: an attempt is counted in one transaction, what came
//! of it is written in another. What is said, written and hashed is the same whether there is an account
//! or not.

mod attempts_store;
mod beats;
pub(crate) mod callers_store;
pub mod cli;
mod cli_store;
mod error;
mod keys;
mod keys_store;
mod lockout;
mod login;
pub mod mfa;
mod mfa_store;
mod model;
mod passwords;
pub mod policy;
mod store;
mod tokens;
mod totp;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use sqlx::PgConnection;
use streamspace_common::{Actor, Config, MasterKeys, Secret, SignInId, TenantId, UserId};
use streamspace_queue::{Queue, Request, Tx};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::{
    error::Error,
    model::{Admitted, Challenge, Client, Kind, LoggedIn, Login, Method, Pass, SignIn, Welcome},
    passwords::{Busy, Passwords},
    tokens::Tokens,
};
pub(crate) use self::{keys::forget as forget_keys, tokens::looks_like_token};
use self::{
    lockout::Rules,
    store::{NewSignIn, Shown},
};
use crate::{
    audit::{self, Entry},
    identity::{self, Permission, Require, Tenant, User},
    links,
    opaque::Form,
};

/// The way in, of one process. Clones share it.
#[derive(Clone)]
pub struct SignIns(Arc<Inner>);

struct Inner {
    queue: Queue,
    passwords: Passwords,
    /// What bcrypt costs where it costs most, and as of when.
    imports: Mutex<Option<(Instant, Option<u32>)>>,
    tokens: Tokens,
    master: MasterKeys,
    rules: Rules,
    lifetime: Duration,
}

impl SignIns {
    pub fn new(queue: Queue, master: MasterKeys, config: &Config) -> Self {
        Self(Arc::new(Inner {
            passwords: Passwords::new(&config.auth),
            imports: Mutex::default(),
            tokens: Tokens::new(queue.clone(), master.clone(), config),
            master,
            rules: Rules::from(&config.auth),
            lifetime: config.auth.refresh_token_ttl,
            queue,
        }))
    }

    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub fn master(&self) -> &MasterKeys {
        &self.0.master
    }

    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// How long a sign-in goes on that nobody uses.
    pub fn lifetime(&self) -> Duration {
        self.0.lifetime
    }

    /// Makes a sign-in for somebody who has shown who they are. To be followed, after the commit, by
    /// [`SignIns::welcome`].
    pub async fn admit(
        &self,
        tx: &mut Tx,
        user: User,
        tenant: Tenant,
        method: Method,
        client: &Client,
    ) -> Result<Admitted, Error> {
        self.admit_shown(tx, user, tenant, method, client, &Shown::default()).await
    }

    /// The same for somebody who has shown it some time ago: it must still hold.
    async fn admit_shown(
        &self,
        tx: &mut Tx,
        mut user: User,
        tenant: Tenant,
        method: Method,
        client: &Client,
        shown: &Shown,
    ) -> Result<Admitted, Error> {
        let form = match client.kind {
            Kind::Tokens => Form::REFRESH,
            Kind::Browser => Form::COOKIE,
        };
        let (id, secret) = (SignInId::new(), form.make());
        let address = tx.request().address.map(|address| address.to_string());
        let new = NewSignIn {
            id,
            tenant: tenant.id,
            user: user.id,
            method,
            client,
            hash: &form.hash_made(&secret),
            address,
            lifetime: self.0.lifetime,
            shown,
        };
        if !store::insert(tx.conn().await?, new).await? {
            return Err(Error::Refused);
        }
        if method.forgives() {
            (user.failed_logins, user.locked_until) = (0, None);
        }
        let made = Entry::new("sign_ins.create", "sign_in", id)
            .after(json!({ "user": user.id, "method": method.as_str(), "kind": client.kind.as_str() }));
        audit::record_in(tx, tenant.id, made).await?;
        Ok(Admitted { id, user, tenant, kind: client.kind, secret })
    }

    /// What somebody who was admitted shows from now on.
    pub async fn welcome(&self, admitted: Admitted) -> Result<Welcome, Error> {
        let Admitted { id, user, tenant, kind, secret } = admitted;
        let pass = match kind {
            Kind::Browser => Pass::Cookie(secret),
            Kind::Tokens => {
                let signer = self.0.tokens.signer().await?;
                let access = self.0.tokens.issue(&signer, tenant.id, user.id, user.role, id);
                Pass::Tokens { access, refresh: secret }
            }
        };
        Ok(Welcome { user, tenant, pass })
    }

    /// A transaction of somebody who has shown who they are, before they are in.
    pub fn begin_as(&self, user: &User, request: Request) -> Tx {
        self.0.queue.begin(user.actor(), request)
    }

    /// Exchanges a refresh token for the next and an access token. One that was used before ends its
    /// sign-in: somebody has copied it, and which of the two came first can't be told.
    pub async fn refresh(&self, request: &Request, token: &str) -> Result<Welcome, Error> {
        let hash = Form::REFRESH.hash(token).ok_or(Error::NoRefresh { ended: None })?;
        let secret = Form::REFRESH.make();
        let address = request.address.map(|address| address.to_string());
        // Before the exchange: what can't be answered must not be used up.
        let signer = self.0.tokens.signer().await?;
        let mut db = self.0.queue.db().begin().await?;
        let next = Form::REFRESH.hash_made(&secret);
        let renewed = store::renew(&mut db, &hash, &next, address.as_deref(), self.0.lifetime).await?;
        let Some(renewed) = renewed else {
            drop(db);
            return Err(Error::NoRefresh { ended: self.end_reused(request, hash).await? });
        };
        let (user, tenant) = identity::of_sign_in(&mut db, renewed.tenant, renewed.user).await?;
        db.commit().await?;
        let access = self.0.tokens.issue(&signer, tenant.id, user.id, user.role, renewed.id);
        Ok(Welcome { user, tenant, pass: Pass::Tokens { access, refresh: secret } })
    }

    async fn end_reused(
        &self,
        request: &Request,
        hash: crate::opaque::Hash,
    ) -> Result<Option<SignInId>, Error> {
        let mut tx = self.0.queue.begin(Actor::system(streamspace_common::PLATFORM), request.clone());
        let ended = store::end_reused(tx.conn().await?, &hash).await?;
        if let Some(ended) = &ended {
            let reuse =
                Entry::new("sign_ins.reuse", "sign_in", ended.id).before(json!({ "user": ended.user }));
            audit::record_in(&mut tx, ended.tenant, reuse).await?;
        }
        tx.commit().await?;
        Ok(ended.map(|ended| ended.id))
    }

    /// Notes that sign-ins are used: to be called now and then with those that were.
    pub async fn touch(&self, ids: &[SignInId]) -> sqlx::Result<()> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let mut db = self.0.queue.db().begin().await?;
        let touched = store::touch(&mut db, &ids, self.0.lifetime).await?;
        db.commit().await?;
        // In another transaction: whoever ends sign-ins locks the person first.
        let mut db = self.0.queue.db().begin().await?;
        store::touch_people(&mut db, &touched).await?;
        db.commit().await
    }

    /// The hash of a password that somebody chooses for themselves or another.
    pub async fn hash(
        &self,
        field: &'static str,
        password: Secret<String>,
        names: &[&str],
    ) -> Result<String, Error> {
        check_policy(field, &password, names)?;
        Ok(self.0.passwords.hash(password).await?)
    }

    /// Changes one's password and ends one's other sign-ins. Who has one must show it.
    pub async fn change_password(
        &self,
        actor: &Actor,
        request: Request,
        current: Secret<String>,
        new: Secret<String>,
        but: Option<SignInId>,
    ) -> Result<(), Error> {
        let Some(user) = actor.user else { return Err(Error::NotFound) };
        let person = identity::person(&mut *self.0.queue.read().await?, actor.tenant, user).await?;
        let names = [person.email.as_str(), person.username.as_str()];
        check_policy("/password", &new, &names)?;
        let old = self.prove(actor, &request, current).await?;
        let hash = self.0.passwords.hash(new).await?;
        let mut tx = self.0.queue.begin(actor.clone(), request);
        if !set_password(&mut tx, actor.tenant, user, &hash, Some(&old), but).await? {
            return Err(not_yours());
        }
        Ok(tx.commit().await?)
    }

    /// Asks somebody who is in for their password, and answers its hash. They may guess no more often than
    /// those who are not in.
    pub async fn prove(
        &self,
        actor: &Actor,
        request: &Request,
        password: Secret<String>,
    ) -> Result<String, Error> {
        let (sign_ins, actor, request) = (self.clone(), actor.clone(), request.clone());
        login::to_its_end(async move |gone| sign_ins.prove_unless(&gone, &actor, &request, password).await)
            .await
    }

    async fn prove_unless(
        &self,
        gone: &CancellationToken,
        actor: &Actor,
        request: &Request,
        password: Secret<String>,
    ) -> Result<String, Error> {
        let Some(user) = actor.user else { return Err(Error::NotFound) };
        let tenant = actor.tenant;
        let mut tx = self.0.queue.begin(actor.clone(), request.clone());
        let conn = tx.conn().await?;
        let open = attempts_store::attempt_of(conn, tenant, user, self.0.rules).await?;
        let stored = store::password_hash(conn, tenant, user).await?;
        tx.commit().await?;
        let compared = login::unless(gone, self.0.passwords.compare(password, stored.clone())).await;
        let mut tx = self.0.queue.begin(actor.clone(), request.clone());
        let shown = match (&compared, open) {
            (Ok(compared), Some(_)) => compared.fits,
            _ => false,
        };
        if shown || (compared.is_err() && open.is_some()) {
            attempts_store::give_back(tx.conn().await?, &[user.0], self.0.rules).await?;
        } else {
            let failed = Entry::new("sign_ins.fail", "user", user).after(json!({ "signedIn": true }));
            audit::record(&mut tx, failed).await?;
            if open == Some(true) {
                login::record_lock(&mut tx, tenant, user).await?;
            }
        }
        tx.commit().await?;
        compared?;
        stored.filter(|_| shown).ok_or_else(not_yours)
    }
}

/// Forgives the failures of an address; whether there were any. Of accounts that they closed none is opened.
pub async fn open_address(tx: &mut Tx, address: IpAddr) -> Result<bool, Error> {
    tx.require(Permission::TenantsManage)?;
    let both = [lockout::counted(address), lockout::anywhere(address)];
    let were = attempts_store::forgive(tx.conn().await?, &both).await?;
    if were {
        audit::record(tx, Entry::new("sign_ins.open_address", "address", &both[0])).await?;
    }
    Ok(were)
}

fn not_yours() -> Error {
    let message = "is not your password, or it was wrong too often".to_owned();
    Error::Invalid { field: "/currentPassword", message }
}

fn check_policy(field: &'static str, password: &Secret<String>, names: &[&str]) -> Result<(), Error> {
    match policy::fault(password.expose(), names) {
        Some(fault) => Err(Error::Invalid { field, message: fault.to_owned() }),
        None => Ok(()),
    }
}

/// Puts a password's hash in place, of another if one is named, and ends the sign-ins of before, but one.
pub(crate) async fn set_password(
    tx: &mut Tx,
    tenant: TenantId,
    user: UserId,
    hash: &str,
    instead_of: Option<&str>,
    but: Option<SignInId>,
) -> Result<bool, Error> {
    let conn = tx.conn().await?;
    if !store::set_password_hash(conn, tenant, user, hash, instead_of).await? {
        return Ok(false);
    }
    let ended = store::end_all(conn, tenant, user, but).await?;
    links::void(tx, tenant, user).await?;
    let changed = Entry::new("users.change_password", "user", user).after(json!({ "endedSignIns": ended }));
    audit::record_in(tx, tenant, changed).await?;
    Ok(true)
}

/// A page of one's sign-ins, newest first, after the cursor.
pub async fn list(
    conn: &mut PgConnection,
    actor: &Actor,
    after: Option<SignInId>,
    limit: u32,
) -> Result<Vec<SignIn>, Error> {
    let Some(user) = actor.user else { return Ok(Vec::new()) };
    Ok(store::list(conn, actor.tenant, user, after, limit).await?)
}

/// Ends one of one's sign-ins.
pub async fn end(tx: &mut Tx, id: SignInId) -> Result<(), Error> {
    let (tenant, user) = (tx.tenant(), tx.actor().user.ok_or(Error::NotFound)?);
    if !store::end(tx.conn().await?, tenant, user, id).await? {
        return Err(Error::NotFound);
    }
    Ok(audit::record(tx, Entry::new("sign_ins.end", "sign_in", id)).await?)
}

/// Whose a browser's sign-in is that began so recently, and how.
pub(crate) async fn whose(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: SignInId,
    within: Duration,
) -> sqlx::Result<Option<(UserId, Method)>> {
    store::whose(conn, tenant, id, within).await
}

/// Ends all of a person's.
pub(crate) async fn end_all(tx: &mut Tx, tenant: TenantId, user: UserId) -> sqlx::Result<u64> {
    store::end_all(tx.conn().await?, tenant, user, None).await
}

/// Forgets what time has ended; answers whether there may be more.
pub(crate) async fn prune(conn: &mut PgConnection, most: i64) -> sqlx::Result<bool> {
    Ok(store::prune(conn, most).await? | cli_store::prune(conn, most).await?)
}

/// Forgets the sign-ins of a tenant that goes and all ways to one, so many rows of each table at most;
/// answers how many.
pub(crate) async fn erase(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    store::erase(conn, tenant, most).await
}
