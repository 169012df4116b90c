//! A program signs in by the browser of its person (RFC 8252): the browser, where they are signed in, is
//! sent to an address of theirs with a code, which the program exchanges for tokens.
//!
//! Any page can send a browser here, so an address alone makes no code: first the person is asked, and
//! what says their yes is a secret that only the page with the question has. It is good once, for the
//! sign-in and the request that it was asked for. The code is worth nothing to who reads it on its way:
//! it takes the verifier of the request's challenge (RFC 7636), which never left the program.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use sha2::{Digest, Sha256};
use streamspace_common::{Actor, PLATFORM, Secret, SignInId};
use streamspace_queue::{Request, Tx};

use super::{Client, Error, Method, SignIns, Welcome, cli_store as store};
use crate::{
    audit::{self, Entry},
    identity::{self, Permission, Require},
    opaque::Form,
};

/// For an answer to the question; programs wait no longer.
const QUESTION: Duration = Duration::from_secs(300);
/// For the way from the browser to the program, and back here.
const CODE: Duration = Duration::from_secs(60);

/// The hash of what the program keeps to itself until it exchanges the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge([u8; 32]);

impl Challenge {
    /// As it stands in an address.
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    fn of(verifier: &str) -> Self {
        Self(Sha256::digest(verifier.as_bytes()).into())
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// What a program asks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// An address of the machine that the browser runs on.
    pub redirect_uri: String,
    pub challenge: Challenge,
}

/// Asks the person of a browser's sign-in; answers what says their yes. What they were asked before can
/// not be answered any more.
pub async fn ask(tx: &mut Tx, sign_in: SignInId, wanted: &Wanted) -> Result<Secret<String>, Error> {
    tx.require(Permission::ProfileOwn)?;
    let (tenant, user) = (tx.tenant(), tx.actor().user.ok_or(Error::NotFound)?);
    let yes = Form::CLI_CONSENT.make();
    let hash = Form::CLI_CONSENT.hash_made(&yes);
    store::ask(tx.conn().await?, &hash, tenant, user, sign_in, wanted, QUESTION).await?;
    Ok(yes)
}

/// Takes their yes; answers the code for the program. `None`: this is no yes to what is asked.
pub async fn allow(
    tx: &mut Tx,
    sign_in: SignInId,
    wanted: &Wanted,
    yes: &Secret<String>,
) -> Result<Option<Secret<String>>, Error> {
    tx.require(Permission::ProfileOwn)?;
    let tenant = tx.tenant();
    let Some(yes) = Form::CLI_CONSENT.hash(yes.expose()) else { return Ok(None) };
    let code = Form::CLI_CODE.make();
    let hash = Form::CLI_CODE.hash_made(&code);
    let allowed = store::allow(tx.conn().await?, &yes, &hash, tenant, sign_in, wanted, CODE).await?;
    Ok(allowed.then_some(code))
}

impl SignIns {
    /// Exchanges a code for tokens. It is used up either way.
    pub async fn exchange(
        &self,
        request: &Request,
        code: &Secret<String>,
        verifier: &Secret<String>,
        redirect_uri: &str,
        client: &Client,
    ) -> Result<Welcome, Error> {
        let hash = Form::CLI_CODE.hash(code.expose()).ok_or(Error::NoCode)?;
        let wanted =
            Wanted { redirect_uri: redirect_uri.to_owned(), challenge: Challenge::of(verifier.expose()) };
        let mut tx = self.0.queue.begin(Actor::system(PLATFORM), request.clone());
        let taken = store::take(tx.conn().await?, &hash, &wanted).await?;
        if let Some(taken) = taken.as_ref().filter(|taken| !taken.fits) {
            // Whoever has read a code on its way comes like this.
            let failed = Entry::new("sign_ins.fail", "user", taken.user).after(json!({ "method": "cli" }));
            audit::record_in(&mut tx, taken.tenant, failed).await?;
        }
        tx.commit().await?;
        let taken = taken.filter(|taken| taken.fits && taken.is_fresh).ok_or(Error::NoCode)?;

        let mut conn = self.0.queue.read().await?;
        let found = identity::of_sign_in(&mut conn, taken.tenant, taken.user).await;
        drop(conn);
        let (user, tenant) = found.map_err(|error| match error {
            identity::Error::NoUser => Error::NoCode,
            other => other.into(),
        })?;
        let mut tx = self.begin_as(&user, request.clone());
        let admitted = self.admit(&mut tx, user, tenant, Method::Cli, client).await?;
        // The person is locked by now: whoever ends their sign-ins has ended the browser's, or will find
        // this one.
        let conn = tx.conn().await?;
        if !store::follow(conn, taken.tenant, admitted.id, taken.browser).await? {
            return Err(Error::NoCode);
        }
        tx.commit().await?;
        self.welcome(admitted).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_that_of_its_verifier() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = Challenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert_eq!(challenge, Some(Challenge::of(verifier)));
        for bad in [
            "",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-c",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=",
            verifier,
        ] {
            assert_ne!(Challenge::parse(bad), challenge, "{bad}");
        }
    }
}
