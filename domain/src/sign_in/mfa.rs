//! The second factor: codes of time, and ten codes on paper for whoever has lost what shows them.

use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use streamspace_common::{Actor, MasterKeys, PLATFORM, Place, Secret, SignInId, TenantId, UserId};
use streamspace_queue::{Request, Tx};

use super::{
    Client, Error, Method, SignIns, Welcome, attempts_store, lockout::counted, login::record_lock,
    mfa_store as store, totp,
};
use crate::{
    audit::{self, Entry},
    identity::{self, Permission, Require},
    opaque::{Form, Hash},
};

/// What shows that somebody holds the second factor.
#[derive(Clone, Debug)]
pub enum Proof {
    Code(Secret<String>),
    /// Good once.
    Recovery(Secret<String>),
}

/// A factor that is not on yet. Shown once.
#[derive(Debug)]
pub struct Enrolment {
    pub uri: Secret<String>,
    /// For whoever types it.
    pub secret: Secret<String>,
}

const RECOVERY_CODES: usize = 10;
/// Eighty bits: no slow hash is needed.
const RECOVERY_BYTES: usize = 10;

fn place(user: UserId) -> Place {
    Place { table: "users", column: "totp_secret", row: user.0 }
}

/// How long ago whoever sets up a second factor may have signed in: a browser left open does not lock its
/// person out.
const LATELY: Duration = Duration::from_secs(15 * 60);

/// Begins: what an authenticator needs. It counts once a code of it was shown.
pub async fn enroll(tx: &mut Tx, master: &MasterKeys, sign_in: SignInId) -> Result<Enrolment, Error> {
    let (tenant, user) = person(tx)?;
    let conn = tx.conn().await?;
    if !store::began_lately(conn, tenant, user, sign_in, LATELY).await? {
        return Err(Error::NotLately);
    }
    let (who, organisation) = identity::of_sign_in(conn, tenant, user).await?;
    let secret = totp::secret();
    if !store::begin(conn, tenant, user, master.seal(place(user), secret.expose())).await? {
        return Err(Error::HasSecondFactor);
    }
    let uri = totp::uri(&secret, &format!("StreamSpace {}", organisation.name), &who.email);
    Ok(Enrolment { uri, secret: totp::written(&secret) })
}

/// Switches it on; answers the recovery codes, shown once.
pub async fn enable(
    tx: &mut Tx,
    master: &MasterKeys,
    code: &Secret<String>,
) -> Result<Vec<Secret<String>>, Error> {
    let (tenant, user) = person(tx)?;
    let now = tx.now().await?;
    let conn = tx.conn().await?;
    let factor = store::lock(conn, tenant, user).await?;
    if factor.is_enabled {
        return Err(Error::HasSecondFactor);
    }
    let sealed = factor.secret.ok_or(Error::NoSecondFactor)?;
    let secret = master.open(place(user), &sealed).map_err(Error::Sealed)?;
    let step = totp::step_of(&secret, code.expose(), now).ok_or_else(wrong_code)?;
    let codes: Vec<_> = (0..RECOVERY_CODES).map(|_| recovery_code()).collect();
    let hashes: Vec<_> = codes.iter().filter_map(|code| recovery_hash(code.expose())).collect();
    store::enable(conn, tenant, user, step, &hashes).await?;
    audit::record(tx, Entry::new("mfa.enable", "user", user)).await?;
    Ok(codes)
}

fn wrong_code() -> Error {
    Error::Invalid { field: "/code", message: "is not the code of this moment".to_owned() }
}

fn person(tx: &Tx) -> Result<(TenantId, UserId), Error> {
    tx.require(Permission::ProfileOwn)?;
    Ok((tx.tenant(), tx.actor().user.ok_or(Error::NotFound)?))
}

/// Takes away whatever there is of a second factor; the caller tells the audit.
pub(crate) async fn forget(tx: &mut Tx, tenant: TenantId, user: UserId) -> sqlx::Result<()> {
    store::disable(tx.conn().await?, tenant, user).await
}

/// Takes a second factor away that its owner has lost; the caller has asked for the right.
pub(crate) async fn remove(tx: &mut Tx, tenant: TenantId, user: UserId) -> Result<(), sqlx::Error> {
    store::disable(tx.conn().await?, tenant, user).await?;
    audit::record_in(tx, tenant, Entry::new("mfa.remove", "user", user)).await
}

impl SignIns {
    /// Switches one's second factor off. Guesses are counted as at signing in.
    pub async fn disable_mfa(&self, actor: &Actor, request: &Request, proof: &Proof) -> Result<(), Error> {
        let mut tx = self.0.queue.begin(actor.clone(), request.clone());
        let (tenant, user) = person(&tx)?;
        let shown = self.shows(&mut tx, tenant, user, proof).await?;
        if shown {
            let conn = tx.conn().await?;
            store::disable(conn, tenant, user).await?;
            attempts_store::give_back(conn, &[user.0], self.0.rules).await?;
            audit::record(&mut tx, Entry::new("mfa.disable", "user", user)).await?;
        } else {
            let failed = Entry::new("sign_ins.fail", "user", user)
                .after(json!({ "factor": "second", "signedIn": true }));
            audit::record(&mut tx, failed).await?;
        }
        // A failure is kept too.
        tx.commit().await?;
        if shown { Ok(()) } else { Err(wrong_code()) }
    }

    /// Completes a sign-in whose password was right.
    pub async fn login_mfa(
        &self,
        request: &Request,
        challenge: &str,
        proof: &Proof,
        client: &Client,
    ) -> Result<Welcome, Error> {
        let hash = Form::CHALLENGE.hash(challenge).ok_or(Error::NoChallenge)?;
        let mut tx = self.0.queue.begin(Actor::system(PLATFORM), request.clone());
        let conn = tx.conn().await?;
        if let Some(address) = request.address
            && let Some(retry_after) = attempts_store::closed_to(conn, &counted(address)).await?
        {
            return Err(Error::Slowed { retry_after });
        }
        // The person is locked first, as by everything that ends their sign-ins; of two that come with the
        // same challenge one waits, and finds it gone.
        let known = match store::whose_challenge(conn, &hash).await? {
            Some(known) => {
                store::lock(conn, known.tenant, known.user).await?;
                store::whose_challenge(conn, &hash).await?
            }
            None => None,
        };
        let Some(known) = known else {
            self.fail_from(&mut tx).await?;
            tx.commit().await?;
            return Err(Error::NoChallenge);
        };
        if !self.shows(&mut tx, known.tenant, known.user, proof).await? {
            let failed = Entry::new("sign_ins.fail", "user", known.user).after(json!({ "factor": "second" }));
            audit::record_in(&mut tx, known.tenant, failed).await?;
            self.fail_from(&mut tx).await?;
            tx.commit().await?;
            return Err(Error::WrongCode);
        }
        let conn = tx.conn().await?;
        store::end_challenge(conn, &hash).await?;
        let (user, tenant) = identity::of_sign_in(conn, known.tenant, known.user).await?;
        tx.act_as(user.actor());
        let admitted = self.admit(&mut tx, user, tenant, Method::Password, client).await?;
        tx.commit().await?;
        self.welcome(admitted).await
    }

    /// Whether the proof is right, counted as an attempt. A right one is used up.
    async fn shows(&self, tx: &mut Tx, tenant: TenantId, user: UserId, proof: &Proof) -> Result<bool, Error> {
        let now = tx.now().await?;
        let conn = tx.conn().await?;
        let Some(closes) = attempts_store::attempt_of(conn, tenant, user, self.0.rules).await? else {
            return Ok(false);
        };
        let shown = match proof {
            Proof::Code(code) => self.shows_code(conn, tenant, user, code, now).await?,
            Proof::Recovery(code) => match recovery_hash(code.expose()) {
                Some(hash) => store::use_recovery_code(conn, tenant, user, &hash).await?,
                None => false,
            },
        };
        if shown && matches!(proof, Proof::Recovery(_)) {
            audit::record_in(tx, tenant, Entry::new("mfa.recover", "user", user)).await?;
        } else if !shown && closes {
            record_lock(tx, tenant, user).await?;
        }
        Ok(shown)
    }

    async fn shows_code(
        &self,
        conn: &mut PgConnection,
        tenant: TenantId,
        user: UserId,
        code: &Secret<String>,
        now: jiff::Timestamp,
    ) -> Result<bool, Error> {
        let factor = store::lock(conn, tenant, user).await?;
        let Some(sealed) = factor.secret.filter(|_| factor.is_enabled) else { return Ok(false) };
        let secret = self.0.master.open(place(user), &sealed).map_err(Error::Sealed)?;
        let Some(step) = totp::step_of(&secret, code.expose(), now) else { return Ok(false) };
        // None works twice, nor does one from before it.
        Ok(store::use_step(conn, tenant, user, step).await?)
    }
}

/// `ABCD-EFGH-IJKL-MNOP`.
fn recovery_code() -> Secret<String> {
    let letters = Secret::new(BASE32_NOPAD.encode(&rand::random::<[u8; RECOVERY_BYTES]>()));
    let groups: Vec<_> = letters.expose().as_bytes().chunks(4).map(String::from_utf8_lossy).collect();
    Secret::new(groups.join("-"))
}

/// However somebody types it.
fn recovery_hash(code: &str) -> Option<Hash> {
    let letters: String = code.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let letters = Secret::new(letters.to_ascii_uppercase());
    let bytes = BASE32_NOPAD.decode(letters.expose().as_bytes()).ok()?;
    (bytes.len() == RECOVERY_BYTES).then(|| Sha256::digest(&bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_code_is_read_however_it_is_typed() {
        let code = recovery_code();
        let hash = recovery_hash(code.expose());
        assert!(hash.is_some() && code.expose().len() == 19);
        let typed = code.expose().to_lowercase().replace('-', " ");
        assert_eq!(recovery_hash(&format!(" {typed} ")), hash);
        for bad in ["", "ABCD", "ABCD-EFGH-IJKL-MNO1", "ABCD-EFGH-IJKL-MNOP-QRST"] {
            assert_eq!(recovery_hash(bad), None, "{bad}");
        }
    }
}
