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
    lockout::counted,
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
/// Refusals are told on the beat, so that a row more or less that was written is not in the time.
const BEAT: Duration = Duration::from_millis(100);
/// As long as it takes at this cost, more or less; each step above it doubles that.
const BCRYPT_OF_A_BEAT: u32 = 10;
/// 6.4 s.
const MOST_STEPS: u32 = 6;
/// For showing a second factor.
const CHALLENGE: Duration = Duration::from_secs(300);

/// Longer while there are hashes of an import that take longer.
fn beat(bcrypt_cost: Option<u32>) -> Duration {
    let steps = bcrypt_cost.unwrap_or_default().saturating_sub(BCRYPT_OF_A_BEAT);
    BEAT * 2_u32.pow(steps.min(MOST_STEPS))
}

fn next_beat(began: Instant, beat: Duration) -> Instant {
    let beats = began.elapsed().as_millis() / beat.as_millis() + 1;
    began + beat * u32::try_from(beats).unwrap_or(u32::MAX)
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
        let began = Instant::now();
        let candidates = self.attempt(request, login).await?;
        let (fitting, others) = match self.compare(login, &candidates, gone).await {
            Ok(compared) => compared,
            Err(busy) => {
                // Nobody has learned anything.
                let users: Vec<_> = candidates.iter().map(|candidate| candidate.user.0).collect();
                self.give_back(request, &users).await?;
                return Err(busy);
            }
        };
        if fitting.is_empty() {
            let beat = self.fail(request, login, &others).await?;
            tokio::time::sleep_until(next_beat(began, beat)).await;
            return Err(Error::Refused);
        }
        // Whoever has shown that the address is theirs has not guessed at their other accounts. Anybody's
        // account may have another's address: then it was a guess.
        let is_guess = !others.is_empty() && !fitting.iter().any(|(who, _)| who.is_proven);
        let mut forgiven: Vec<_> = fitting.iter().map(|(who, _)| who.user.0).collect();
        if is_guess {
            let mut tx = self.0.queue.begin(Actor::system(PLATFORM), request.clone());
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
        if let Some(address) = request.address
            && let Some(retry_after) = attempts_store::closed_to(&mut db, &counted(address)).await?
        {
            return Err(Error::Slowed { retry_after });
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
            let looks = usize::from(if login.tenant.is_none() { MOST_TENANTS } else { 1 });
            for _ in others.len()..looks {
                look(None).await?;
            }
        }
        Ok((fitting, others))
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
    ///
    /// Answers the beat on which it is to be told: whoever's password is of an import is looked at for
    /// longer, so all are told as late.
    async fn fail(
        &self,
        request: &Request,
        login: &Login,
        accounts: &[Candidate],
    ) -> Result<Duration, Error> {
        let mut tx = self.0.queue.begin(Actor::system(PLATFORM), request.clone());
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
        let cost = attempts_store::highest_bcrypt_cost(tx.conn().await?).await?;
        tx.commit().await?;
        Ok(beat(cost))
    }

    async fn give_back(&self, request: &Request, users: &[Uuid]) -> Result<(), Error> {
        let mut tx = self.0.queue.begin(Actor::system(PLATFORM), request.clone());
        attempts_store::give_back(tx.conn().await?, users, self.0.rules).await?;
        Ok(tx.commit().await?)
    }

    /// Of the address, and against accounts whose password it was not.
    async fn record_failures(&self, tx: &mut Tx, accounts: &[Candidate]) -> Result<(), Error> {
        self.fail_from(tx).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_on_the_beat_of_the_slowest_hash() {
        let told_after = |cost, worked: u64| {
            let began = Instant::now().checked_sub(Duration::from_millis(worked)).expect("up for a while");
            let late = next_beat(began, beat(cost)) - began;
            late.as_millis()
        };
        assert_eq!((told_after(None, 30), told_after(None, 130)), (100, 200));
        assert_eq!(
            (told_after(Some(10), 30), told_after(Some(12), 30), told_after(Some(12), 330)),
            (100, 400, 400)
        );
        assert_eq!(told_after(Some(31), 30), 6400);
    }
}
