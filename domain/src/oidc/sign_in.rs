//! Sending a browser to a provider, and taking in whom the provider signs in.
//!
//! The provider is asked while no connection of the database is held: what was noted of the browser is
//! taken in one transaction, whoever came back is let in in others.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::json;
use streamspace_common::{Actor, PLATFORM, Secret, SignInId, TenantId, UserId};
use streamspace_queue::Request;
use tracing::warn;
use url::Url;

use super::{
    Claims, Discovery, Error, Oidc, Unanswered, Untrue,
    account::{self, Linking},
    discovery::Login,
    id_token::{self, Expected},
    identities_store,
    model::{ClientSecret, Provider, Whose},
    port::{Age, Grant},
    providers::place,
    store::{self, Noted},
    trip::Trip,
};
use crate::{
    audit::{self, Entry},
    callers::Checked,
    identity::{self, Tenant},
    sign_in::{self, Client, Method, Welcome},
};

/// From the provider's page to ours.
pub const LIFETIME: Duration = Duration::from_secs(600);
/// Whoever links an identity has shown who they are so recently.
const FRESH: Duration = Duration::from_secs(600);

/// A browser that wants to sign in.
#[derive(Clone, Debug)]
pub struct Departure<'a> {
    pub provider: &'a str,
    /// The cookie from an earlier time.
    pub cookie: Option<&'a str>,
    /// A path of ours.
    pub return_to: &'a str,
    /// Whoever is in already and links the identity to their account.
    pub linking: Option<&'a Checked>,
}

/// Where it goes, and what it keeps meanwhile.
#[derive(Debug)]
pub struct Sent {
    pub to: Url,
    pub cookie: Secret<String>,
}

/// A browser that comes back.
#[derive(Clone, Debug)]
pub struct Arrival<'a> {
    pub provider: &'a str,
    pub cookie: Option<&'a str>,
    pub state: Option<&'a str>,
    pub code: Option<Secret<String>>,
    /// Who says that the answer is theirs (RFC 9207).
    pub issuer: Option<&'a str>,
    /// OAuth's word for why there is no code.
    pub error: Option<&'a str>,
}

/// Whom the provider signed in.
#[derive(Debug)]
pub struct Arrived {
    pub user: UserId,
    /// `None`: they were in, and have linked the identity.
    pub welcome: Option<Welcome>,
    pub return_to: String,
}

impl Oidc {
    /// Sends a browser to a provider.
    pub async fn depart(&self, departure: &Departure<'_>) -> Result<Sent, Error> {
        let provider = self.find(departure.provider).await?;
        let linking = match departure.linking {
            Some(checked) => Some(self.may_link(checked).await?),
            None => None,
        };
        let document = self.discover(&provider).await?;
        let trip = Trip::begin(departure.cookie);
        let noted = Noted {
            provider: provider.settings.name.clone(),
            provider_url: provider.settings.provider_url.clone(),
            return_to: departure.return_to.to_owned(),
            linking,
        };
        let mut db = self.0.queue.db().begin().await?;
        store::insert_state(&mut db, &trip, &noted, LIFETIME).await?;
        db.commit().await?;
        let to = document.login(&Login {
            client_id: &provider.settings.client_id,
            redirect_uri: &self.redirect_uri(&provider),
            scopes: &provider.settings.scopes,
            state: trip.state.expose(),
            nonce: &trip.nonce(),
            challenge: &trip.challenge(),
        });
        Ok(Sent { to, cookie: trip.cookie })
    }

    /// Takes a browser in that comes back from one. `client` is what it signs in with.
    pub async fn arrive(
        &self,
        request: &Request,
        arrival: Arrival<'_>,
        client: &Client,
    ) -> Result<Arrived, Error> {
        let trip = arrival.state.zip(arrival.cookie).and_then(|(state, cookie)| Trip::back(state, cookie));
        let trip = trip.ok_or(Error::Stale)?;
        let mut db = self.0.queue.db().begin().await?;
        let noted = store::take_state(&mut db, &trip).await?;
        db.commit().await?;
        let noted = noted.filter(|noted| noted.provider == arrival.provider).ok_or(Error::Stale)?;
        let provider = self.find(&noted.provider).await?;
        if provider.settings.provider_url != noted.provider_url {
            return Err(Error::Stale);
        }
        let arrived = self.let_in(request, &provider, &trip, &noted, arrival, client).await;
        if let Err(error) = &arrived {
            self.note_failure(request, &provider, error).await?;
        }
        arrived
    }

    async fn let_in(
        &self,
        request: &Request,
        provider: &Provider,
        trip: &Trip,
        noted: &Noted,
        arrival: Arrival<'_>,
        client: &Client,
    ) -> Result<Arrived, Error> {
        // One end for all the calls: the request that waits for them has one too, and what comes after it
        // is told to nobody.
        let patience = self.0.port.patience();
        let asked = tokio::time::timeout(patience, self.ask(provider, trip, arrival)).await;
        let claims = asked.unwrap_or_else(|_| {
            Err(Unanswered::Unreachable(format!("no answer within {patience:?}")).into())
        })?;
        let tenant = self.tenant(provider, &claims).await?;
        let linking = match noted.linking {
            Some((of, sign_in)) => Some(self.who_links(&tenant, of, sign_in).await?),
            None => None,
        };
        let mut tx = self.0.queue.begin(Actor::system(tenant.id), request.clone());
        let identity = account::of(&mut tx, provider, &claims, linking).await?;
        let user = identity.user;
        tx.commit().await?;
        if linking.is_some() {
            return Ok(Arrived { user, welcome: None, return_to: noted.return_to.clone() });
        }
        let mut conn = self.0.queue.read().await?;
        let (person, tenant) = identity::of_sign_in(&mut conn, tenant.id, user).await?;
        drop(conn);
        let of = tenant.id;
        let mut tx = self.0.sign_ins.begin_as(&person, request.clone());
        let admitted = self.0.sign_ins.admit(&mut tx, person, tenant, Method::Oidc, client).await?;
        // The person is locked by now. Whoever has shown meanwhile that the account is theirs has taken the
        // identity from it.
        if !identities_store::is_there(tx.conn().await?, of, identity.id).await? {
            return Err(Error::LinkRequired { provider: provider.settings.name.clone() });
        }
        tx.commit().await?;
        let welcome = self.0.sign_ins.welcome(admitted).await?;
        Ok(Arrived { user, welcome: Some(welcome), return_to: noted.return_to.clone() })
    }

    /// What the provider says of the person whose browser this is.
    async fn ask(&self, provider: &Provider, trip: &Trip, arrival: Arrival<'_>) -> Result<Claims, Error> {
        if let Some(error) = arrival.error {
            return Err(Error::Declined(word(error)));
        }
        let code = arrival.code.ok_or_else(|| Error::Declined("no code".to_owned()))?;
        let document = self.discover(provider).await?;
        // Mixed up: whoever answers is not whom the browser was sent to.
        match arrival.issuer {
            Some(issuer) if issuer != document.issuer => return Err(Untrue::Answer.into()),
            None if document.names_itself => return Err(Untrue::Answer.into()),
            _ => {}
        }
        let secret = self.secret(provider)?;
        let grant = Grant {
            client_id: &provider.settings.client_id,
            client_secret: &secret,
            redirect_uri: &self.redirect_uri(provider),
            code: &code,
            verifier: &trip.verifier(),
        };
        let tokens = self.0.port.redeem(&document, &grant).await?;
        let nonce = trip.nonce();
        let expected = Expected {
            provider: &document,
            client_id: &provider.settings.client_id,
            nonce: &nonce,
            access_token: tokens.access_token.expose(),
            now: Timestamp::now(),
        };
        let claims = self.verify(tokens.id_token.expose(), &expected).await?;
        if provider.has_all(&claims) {
            return Ok(claims);
        }
        let Some(info) = self.0.port.user_info(&document, &tokens.access_token).await? else {
            return Ok(claims);
        };
        // OpenID Connect Core, 5.3.2.
        if info.subject().is_none() || info.subject() != claims.subject() {
            return Err(Untrue::OtherSubject.into());
        }
        Ok(claims.completed_by(info))
    }

    /// A key that is not known may be new.
    async fn verify(&self, token: &str, expected: &Expected<'_>) -> Result<Claims, Error> {
        let keys = self.0.port.keys(expected.provider, Age::Known).await?;
        match id_token::verify(token, &keys, expected) {
            Err(Untrue::UnknownKey) => {
                let keys = self.0.port.keys(expected.provider, Age::Newest).await?;
                Ok(id_token::verify(token, &keys, expected)?)
            }
            verified => Ok(verified?),
        }
    }

    async fn discover(&self, provider: &Provider) -> Result<Arc<Discovery>, Error> {
        let discovered = self.0.port.discover(&provider.settings.provider_url).await;
        discovered.map_err(|error| {
            let name = &provider.settings.name;
            warn!(provider = %name, "the identity provider {name} cannot be used: {error}");
            error.into()
        })
    }

    fn secret(&self, provider: &Provider) -> Result<Secret<String>, Error> {
        match &provider.secret {
            ClientSecret::Open(secret) => Ok(secret.clone()),
            ClientSecret::Sealed(id, sealed) => {
                let opened = self.0.master.open(place(*id), sealed).map_err(Error::Sealed)?;
                Ok(Secret::new(String::from_utf8_lossy(opened.expose()).into_owned()))
            }
        }
    }

    /// The tenant that the provider signs this person in to.
    async fn tenant(&self, provider: &Provider, claims: &Claims) -> Result<Tenant, Error> {
        let mut conn = self.0.queue.read().await?;
        let tenant = match &provider.whose {
            Whose::Tenant(id) => Some(identity::tenant_of(&mut conn, *id).await?),
            Whose::Named(slug) => identity::tenant_named(&mut conn, slug).await?,
            Whose::ByClaim { claim, slugs } => {
                let mut fitting: Vec<_> = claims
                    .list(claim)
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|value| slugs.get(value))
                    .collect();
                fitting.dedup();
                match fitting.as_slice() {
                    [slug] => identity::tenant_named(&mut conn, slug).await?,
                    // Of several nobody has said which.
                    _ => None,
                }
            }
        };
        tenant.filter(|tenant| tenant.active).ok_or(Error::NoTenant)
    }

    /// Whoever has just shown who they are in this browser.
    async fn may_link(&self, checked: &Checked) -> Result<(TenantId, SignInId), Error> {
        let sign_in = checked.sign_in().filter(|_| checked.by_cookie && !checked.must_enrol);
        let sign_in = sign_in.ok_or(Error::NotFresh)?;
        let tenant = checked.actor.tenant;
        let mut conn = self.0.queue.read().await?;
        match sign_in::whose(&mut conn, tenant, sign_in, FRESH).await? {
            Some(_) => Ok((tenant, sign_in)),
            None => Err(Error::NotFresh),
        }
    }

    async fn who_links(&self, tenant: &Tenant, of: TenantId, sign_in: SignInId) -> Result<Linking, Error> {
        if of != tenant.id {
            return Err(Error::NoTenant);
        }
        let mut conn = self.0.queue.read().await?;
        let found = sign_in::whose(&mut conn, of, sign_in, FRESH + LIFETIME).await?;
        let (user, method) = found.ok_or(Error::NotFresh)?;
        Ok(Linking { user, in_person: method != Method::Oidc })
    }

    /// Into the audit of the tenant where there is one, and where the fault is the provider's also into
    /// the log.
    async fn note_failure(&self, request: &Request, provider: &Provider, error: &Error) -> Result<(), Error> {
        let name = &provider.settings.name;
        if let Error::Unanswered(reason) = error {
            warn!(provider = %name, request_id = request.id, "signing in through {name} failed: {reason}");
        }
        let mut conn = self.0.queue.read().await?;
        let tenant = match &provider.whose {
            Whose::Tenant(id) => *id,
            Whose::Named(slug) => {
                identity::tenant_named(&mut conn, slug).await?.map_or(PLATFORM, |tenant| tenant.id)
            }
            Whose::ByClaim { .. } => PLATFORM,
        };
        drop(conn);
        let mut tx = self.0.queue.begin(Actor::system(PLATFORM), request.clone());
        let failed = Entry::new("sign_ins.fail", "identity_provider", name)
            .after(json!({ "method": Method::Oidc.as_str(), "reason": reason(error) }));
        audit::record_in(&mut tx, tenant, failed).await?;
        Ok(tx.commit().await?)
    }
}

/// Our own faults are told in the log alone.
fn reason(error: &Error) -> String {
    match error {
        Error::Db(_) | Error::Sealed(_) => "internal error".to_owned(),
        told => told.to_string(),
    }
}

/// OAuth's words are short; whatever else stands there is not repeated.
fn word(text: &str) -> String {
    let plain = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if plain { text.to_owned() } else { "no reason".to_owned() }
}

impl Provider {
    /// Whether the token says all that user information could.
    fn has_all(&self, claims: &Claims) -> bool {
        let settings = &self.settings;
        let says = |claim: &str| claims.has(claim) || claims.is_elsewhere(claim);
        let tenant = match &self.whose {
            Whose::ByClaim { claim, .. } => says(claim),
            _ => true,
        };
        tenant
            && says(&settings.username_claim)
            && says(&settings.email_claim)
            && (settings.email_claim != "email" || says("email_verified"))
            && (settings.group_mapping.is_empty() || says(&settings.groups_claim))
    }
}
