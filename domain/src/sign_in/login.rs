//! Signing in by a password.

use std::time::Duration;

use serde_json::json;
use streamspace_common::{Actor, PLATFORM, TenantId, UserId};
use streamspace_queue::{Request, Tx};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info};
use uuid::Uuid;

use super::{
    Challenge, Client, Error, LoggedIn, Login, Method, SignIns,
    attempts_store::{self, Candidate},
    beats,
    lockout::{anywhere, counted},
    passwords::Busy,
    store::{self, Shown},
};
use crate::{
    audit::{self, Entry},
    identity,
    opaque::Form,
};

/// Tenants of one address in which a password is tried when none is named. Where none of them fits, so many
/// are looked at whoever is known, so that the time does not tell in how many somebody is: each costs all.
const MOST_TENANTS: u8 = 4;
/// Dearer hashes than this, of a second each, are told from others: they would cost strangers' guesses more.
const DEAREST: u32 = 14;
const FRESH: Duration = Duration::from_secs(60);
/// For showing a second factor.
const CHALLENGE: Duration = Duration::from_secs(300);

/// Passwords that are looked at where none fits.
fn looks(login: &Login) -> usize {
    usize::from(if login.tenant.is_none() { MOST_TENANTS } else { 1 })
}

impl SignIns {
    pub async fn login(&self, request: &Request, login: Login, client: &Client) -> Result<LoggedIn, Error> {
        let (sign_ins, request, client) = (self.clone(), request.clone(), client.clone());
        to_its_end(async move |gone| sign_ins.log_in(&request, &login, &client, &gone).await).await
    }

    async fn log_in(
        &self,
        request: &Request,
        login: &Login,
        client: &Client,
        gone: &CancellationToken,
    ) -> Result<LoggedIn, Error> {
        let came = Instant::now();
        let imports = self.bcrypt_cost().await?;
        let candidates = self.attempt(request, login).await?;
        let hashing = Instant::now();
        let (fitting, others) = match self.compare(login, &candidates, imports, gone).await {
            Ok(compared) => compared,
            Err(busy) => {
                // Nobody has learned anything.
                let users: Vec<_> = candidates.iter().map(|candidate| candidate.user.0).collect();
                self.give_back(request, &users).await?;
                return Err(busy);
            }
        };
        if fitting.is_empty() {
            let hashed = hashing.elapsed();
            self.fail(request, login, &others).await?;
            tokio::time::sleep_until(beats::next(came, hashed)).await;
            return Err(Error::Refused);
        }
        // Whoever has shown that the address is theirs has not guessed at their other accounts. Anybody's
        // account may have another's address: then it was a guess.
        let is_guess = !others.is_empty() && !fitting.iter().any(|(who, _)| who.is_proven);
        let mut forgiven: Vec<_> = fitting.iter().map(|(who, _)| who.user.0).collect();
        if is_guess {
            let mut tx = self.0.queue.begin(Actor::system(PLATFORM), request.clone());
            // An address may not be closed by it: whoever makes accounts with the addresses of an office's
            // people would close the office out.
            if let Some(address) = request.address {
                attempts_store::fail_from(tx.conn().await?, &anywhere(address), self.0.rules).await?;
            }
            self.record_failures(&mut tx, &others).await?;
            tx.commit().await?;
        } else {
            forgiven.extend(others.iter().map(|other| other.user.0));
        }
        if let [(who, upgrade)] = fitting.as_slice() {
            return self.let_in(request, who, upgrade.as_deref(), &forgiven, client).await;
        }
        self.give_back(request, &forgiven).await?;
        let mut slugs: Vec<_> = fitting.into_iter().map(|(who, _)| who.slug).collect();
        slugs.sort_unstable();
        Err(Error::TenantRequired { slugs })
    }

    /// Counts it against each account that it could be for.
    async fn attempt(&self, request: &Request, login: &Login) -> Result<Vec<Candidate>, Error> {
        let mut db = self.0.queue.db().begin().await?;
        if let Some(address) = request.address {
            if let Some(retry_after) = attempts_store::closed_to(&mut db, &counted(address)).await? {
                return Err(Error::Slowed { retry_after });
            }
            if login.tenant.is_none()
                && let Some(retry_after) = attempts_store::closed_to(&mut db, &anywhere(address)).await?
            {
                return Err(Error::NameTenant { retry_after });
            }
        }
        let candidates = attempts_store::attempt(
            &mut db,
            login.email.trim(),
            login.tenant.as_deref(),
            i64::from(MOST_TENANTS),
            self.0.rules,
        )
        .await?;
        db.commit().await?;
        Ok(candidates)
    }

    /// Those whose password it is, with a better hash where theirs is old, and the others.
    async fn compare(
        &self,
        login: &Login,
        candidates: &[Candidate],
        bcrypt_cost: Option<u32>,
        gone: &CancellationToken,
    ) -> Result<(Vec<(Candidate, Option<String>)>, Vec<Candidate>), Error> {
        let passwords = &self.0.passwords;
        let look = async |stored| unless(gone, passwords.compare(login.password.clone(), stored)).await;
        let (mut fitting, mut others) = (Vec::new(), Vec::new());
        for candidate in candidates.iter().cloned() {
            let compared = look(candidate.password_hash.clone()).await?;
            match compared.fits {
                true => fitting.push((candidate, compared.upgrade)),
                false => others.push(candidate),
            }
        }
        if fitting.is_empty() {
            // All is known by now, and who waits no longer may have noticed it: that counts.
            let _ = self.look_on(login, &others, bcrypt_cost, gone).await;
        }
        Ok((fitting, others))
    }

    /// So much and so long as if there were accounts of all kinds.
    async fn look_on(
        &self,
        login: &Login,
        others: &[Candidate],
        bcrypt_cost: Option<u32>,
        gone: &CancellationToken,
    ) -> Result<(), Busy> {
        let passwords = &self.0.passwords;
        for other in others {
            let stored = other.password_hash.clone();
            unless(gone, passwords.rest(login.password.clone(), stored, bcrypt_cost)).await?;
        }
        for _ in others.len()..looks(login) {
            unless(gone, passwords.compare(login.password.clone(), None)).await?;
            unless(gone, passwords.rest(login.password.clone(), None, bcrypt_cost)).await?;
        }
        Ok(())
    }

    /// Of the dearest hash that an import has brought and nobody has signed in with since; a minute old at
    /// most.
    async fn bcrypt_cost(&self) -> Result<Option<u32>, Error> {
        let latest = *self.0.imports.lock().expect("no panic while it was held");
        if let Some((_, cost)) = latest.filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(cost);
        }
        let now = Instant::now();
        let cost = attempts_store::highest_bcrypt_cost(&mut *self.0.queue.read().await?).await?;
        let cost = cost.map(|cost| cost.min(DEAREST));
        *self.0.imports.lock().expect("no panic while it was held") = Some((now, cost));
        Ok(cost)
    }

    async fn let_in(
        &self,
        request: &Request,
        who: &Candidate,
        upgrade: Option<&str>,
        forgiven: &[Uuid],
        client: &Client,
    ) -> Result<LoggedIn, Error> {
        let mut conn = self.0.queue.read().await?;
        // Disabled since the attempt was counted: as if it had been before.
        let found = identity::of_sign_in(&mut conn, who.tenant, who.user).await;
        drop(conn);
        let (user, tenant) = found.map_err(|error| match error {
            identity::Error::NoUser => Error::Refused,
            other => other.into(),
        })?;
        let mut tx = self.begin_as(&user, request.clone());
        // The second factor's attempts are counted by themselves, until it is right.
        attempts_store::give_back(tx.conn().await?, forgiven, self.0.rules).await?;
        let mut password_hash = who.password_hash.clone();
        let conn = tx.conn().await?;
        if let (Some(old), Some(new)) = (&who.password_hash, upgrade) {
            if !store::set_password_hash(conn, who.tenant, who.user, new, Some(old)).await? {
                return Err(Error::Refused);
            }
            password_hash = Some(new.to_owned());
        }
        if who.has_second_factor {
            let secret = Form::CHALLENGE.make();
            let hash = Form::CHALLENGE.hash_made(&secret);
            let password_hash = password_hash.unwrap_or_default();
            if !store::insert_challenge(conn, &hash, who.tenant, who.user, &password_hash, CHALLENGE).await? {
                return Err(Error::Refused);
            }
            tx.commit().await?;
            return Ok(LoggedIn::SecondFactor(Challenge { secret, expires_in: CHALLENGE }));
        }
        let shown = Shown { password_hash, no_second_factor: true };
        let admitted = self.admit_shown(&mut tx, user, tenant, Method::Password, client, &shown).await?;
        tx.commit().await?;
        Ok(LoggedIn::In(Box::new(self.welcome(admitted).await?)))
    }

    /// Nobody was let in. A stranger's guess is written down as a known person's is: in the platform's
    /// audit.
    async fn fail(&self, request: &Request, login: &Login, accounts: &[Candidate]) -> Result<(), Error> {
        let mut tx = self.0.queue.begin(Actor::system(PLATFORM), request.clone());
        self.fail_from(&mut tx).await?;
        self.record_failures(&mut tx, accounts).await?;
        let (email, slug) = (login.email.trim(), login.tenant.as_deref());
        let closed = attempts_store::closed(tx.conn().await?, email, slug, i64::from(MOST_TENANTS)).await?;
        let closed = closed.into_iter().filter(|(_, user)| accounts.iter().all(|known| known.user != *user));
        let closed: Vec<_> = closed.collect();
        for (tenant, user) in &closed {
            let failed = Entry::new("sign_ins.fail", "user", user).after(json!({ "locked": true }));
            audit::record_in(&mut tx, *tenant, failed).await?;
        }
        if accounts.is_empty() && closed.is_empty() {
            audit::record(&mut tx, Entry::new("sign_ins.fail", "user", "unknown")).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn give_back(&self, request: &Request, users: &[Uuid]) -> Result<(), Error> {
        let mut tx = self.0.queue.begin(Actor::system(PLATFORM), request.clone());
        attempts_store::give_back(tx.conn().await?, users, self.0.rules).await?;
        Ok(tx.commit().await?)
    }

    /// Against accounts whose password it was not.
    async fn record_failures(&self, tx: &mut Tx, accounts: &[Candidate]) -> Result<(), Error> {
        for account in accounts {
            audit::record_in(tx, account.tenant, Entry::new("sign_ins.fail", "user", account.user)).await?;
            if account.closes {
                record_lock(tx, account.tenant, account.user).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn fail_from(&self, tx: &mut Tx) -> Result<(), Error> {
        if let Some(address) = tx.request().address {
            attempts_store::fail_from(tx.conn().await?, &counted(address), self.0.rules).await?;
        }
        Ok(())
    }
}

/// Whoever hangs up meanwhile leaves nothing half done: what has been counted is settled. The work is told
/// when nobody waits for it any more.
pub(super) async fn to_its_end<T, W>(work: impl FnOnce(CancellationToken) -> W) -> T
where
    T: Send + 'static,
    W: Future<Output = T> + Send + 'static,
{
    let gone = CancellationToken::new();
    let _waiting = gone.clone().drop_guard();
    match tokio::spawn(work(gone).in_current_span()).await {
        Ok(ended) => ended,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process ends.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Who hangs up gives their place in the line back.
pub(super) async fn unless<T>(
    gone: &CancellationToken,
    look: impl Future<Output = Result<T, Busy>>,
) -> Result<T, Busy> {
    tokio::select! {
        looked = look => looked,
        () = gone.cancelled() => Err(Busy::Gone),
    }
}

/// A failure has closed an account.
pub(super) async fn record_lock(tx: &mut Tx, tenant: TenantId, user: UserId) -> Result<(), Error> {
    info!(user.id = %user, "signing in is closed to {user} for a while: too many failures");
    let locked = Entry::new("users.lock", "user", user).after(json!({ "locked": true }));
    Ok(audit::record_in(tx, tenant, locked).await?)
}
