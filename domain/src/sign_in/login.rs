//! Signing in by a password.

use std::time::Duration;

use serde_json::json;
use streamspace_common::{Actor, PLATFORM, TenantId, UserId};
use streamspace_queue::{Request, Tx};
use tokio::time::Instant;
use tracing::info;

use super::{
    Challenge, Client, Error, LoggedIn, Login, Method, SignIns,
    attempts_store::{self, Candidate},
    lockout::counted,
    store::{self, Shown},
};
use crate::{
    audit::{self, Entry},
    identity,
    opaque::Form,
};

/// Tenants of one address in which a password is tried when none is named.
const MOST_TENANTS: i64 = 8;
/// Passwords that are looked at when none is found: where no tenant is named, as many as for somebody who
/// is in two, so that neither none nor one nor two can be told from the time.
const LOOKS: [usize; 2] = [1, 2];
/// Refusals are told on the beat, so that a row more or less that was written is not in the time.
const BEAT: Duration = Duration::from_millis(100);
/// For showing a second factor.
const CHALLENGE: Duration = Duration::from_secs(300);

fn next_beat(began: Instant) -> Instant {
    let beats = began.elapsed().as_millis() / BEAT.as_millis() + 1;
    began + BEAT * u32::try_from(beats).unwrap_or(u32::MAX)
}

impl SignIns {
    pub async fn login(&self, request: &Request, login: Login, client: &Client) -> Result<LoggedIn, Error> {
        let began = Instant::now();
        let candidates = self.attempt(request, &login).await?;
        let (fitting, others) = match self.compare(&login, &candidates).await {
            Ok(compared) => compared,
            Err(busy) => {
                // Nothing was tried.
                self.give_back(request, &candidates).await?;
                return Err(busy);
            }
        };
        match fitting.as_slice() {
            [] => {
                self.fail(request, &login, &others).await?;
                tokio::time::sleep_until(next_beat(began)).await;
                Err(Error::Refused)
            }
            [(who, upgrade)] => self.let_in(request, who, upgrade.as_deref(), &others, client).await,
            several => {
                let fitting: Vec<_> = several.iter().map(|(who, _)| who.clone()).collect();
                self.give_back(request, &fitting).await?;
                let mut slugs: Vec<_> = several.iter().map(|(who, _)| who.slug.clone()).collect();
                slugs.sort_unstable();
                Err(Error::TenantRequired { slugs })
            }
        }
    }

    /// Counts it, against the address and against each account that it could be for.
    async fn attempt(&self, request: &Request, login: &Login) -> Result<Vec<Candidate>, Error> {
        let mut db = self.0.queue.db().begin().await?;
        if let Some(address) = request.address
            && let Some(retry_after) =
                attempts_store::attempt_from(&mut db, &counted(address), self.0.rules).await?
        {
            db.commit().await?;
            return Err(Error::Slowed { retry_after });
        }
        let candidates = attempts_store::attempt(
            &mut db,
            login.email.trim(),
            login.tenant.as_deref(),
            MOST_TENANTS,
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
    ) -> Result<(Vec<(Candidate, Option<String>)>, Vec<Candidate>), Error> {
        let (mut fitting, mut others) = (Vec::new(), Vec::new());
        for candidate in candidates.iter().cloned() {
            let stored = candidate.password_hash.clone();
            let compared = self.0.passwords.compare(login.password.clone(), stored).await?;
            match compared.fits {
                true => fitting.push((candidate, compared.upgrade)),
                false => others.push(candidate),
            }
        }
        if fitting.is_empty() {
            for _ in others.len()..LOOKS[usize::from(login.tenant.is_none())] {
                self.0.passwords.compare(login.password.clone(), None).await?;
            }
        }
        Ok((fitting, others))
    }

    async fn let_in(
        &self,
        request: &Request,
        who: &Candidate,
        upgrade: Option<&str>,
        others: &[Candidate],
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
        // Whoever has shown that the address is theirs has not guessed at their other accounts. Anybody's
        // account may have another's address: then it was a guess.
        let forgiven = if who.is_proven { others } else { &[] };
        if !who.is_proven {
            record_failures(&mut tx, others).await?;
        }
        // The second factor's attempts are counted by themselves, until it is right.
        let forgiven: Vec<_> = forgiven.iter().chain(who.has_second_factor.then_some(who)).collect();
        self.forgive(&mut tx, &forgiven).await?;
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
        record_failures(&mut tx, accounts).await?;
        let (email, slug) = (login.email.trim(), login.tenant.as_deref());
        let closed = attempts_store::closed(tx.conn().await?, email, slug, MOST_TENANTS).await?;
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

    async fn give_back(&self, request: &Request, accounts: &[Candidate]) -> Result<(), Error> {
        let mut tx = self.0.queue.begin(Actor::system(PLATFORM), request.clone());
        self.forgive(&mut tx, &accounts.iter().collect::<Vec<_>>()).await?;
        Ok(tx.commit().await?)
    }

    /// The attempt was no failure: neither of the address nor of accounts that it was not for.
    pub(super) async fn forgive(&self, tx: &mut Tx, accounts: &[&Candidate]) -> Result<(), Error> {
        let address = tx.request().address;
        let conn = tx.conn().await?;
        if let Some(address) = address {
            attempts_store::give_back_from(conn, &counted(address), self.0.rules).await?;
        }
        if !accounts.is_empty() {
            let mut users: Vec<_> = accounts.iter().map(|account| account.user.0).collect();
            // In the order in which an attempt locks them.
            users.sort_unstable();
            attempts_store::give_back(conn, &users, self.0.rules).await?;
        }
        Ok(())
    }
}

/// Against accounts whose password it was not.
async fn record_failures(tx: &mut Tx, accounts: &[Candidate]) -> Result<(), Error> {
    for account in accounts {
        audit::record_in(tx, account.tenant, Entry::new("sign_ins.fail", "user", account.user)).await?;
        if account.closes {
            record_lock(tx, account.tenant, account.user).await?;
        }
    }
    Ok(())
}

/// A failure has closed an account.
pub(super) async fn record_lock(tx: &mut Tx, tenant: TenantId, user: UserId) -> Result<(), Error> {
    info!(user.id = %user, "signing in is closed to {user} for a while: too many failures");
    let locked = Entry::new("users.lock", "user", user).after(json!({ "locked": true }));
    Ok(audit::record_in(tx, tenant, locked).await?)
}
