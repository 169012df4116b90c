//! Identity providers over HTTP.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use streamspace_common::{
    Config, Secret,
    jws::{Jwk, PublicKey},
};
use streamspace_domain::oidc::{
    Age, Claims, Discovery, Grant, IdentityProviders, Tokens, Unanswered, Untrue, document_url,
};
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::{
    cache::{Cache, Held},
    outbound::{Answer, Outbound},
};

/// How long what a provider publishes is taken as it was.
const KEPT: Duration = Duration::from_secs(3600);
/// How often a provider is asked for keys that it was not known to have.
const RENEWED_EVERY: Duration = Duration::from_secs(10);
/// More keys than a provider signs with; each is tried where a token names none.
const MOST_KEYS: usize = 64;

#[derive(Debug)]
pub struct HttpProviders {
    outbound: Outbound,
    documents: Cache<Discovery>,
    keys: Cache<Vec<Jwk>>,
    patience: Duration,
}

impl HttpProviders {
    /// With all the calls of one sign-in: of the thirty seconds of a request ten are left for our own part.
    pub const PATIENCE: Duration = Duration::from_secs(20);

    /// As an installation is configured.
    pub fn of(config: &Config) -> Self {
        let allowed = config.security.allowed_cidrs.clone().unwrap_or_default();
        Self::new(Outbound::new(allowed, Outbound::PATIENCE))
    }

    pub fn new(outbound: Outbound) -> Self {
        Self { outbound, documents: Cache::default(), keys: Cache::default(), patience: Self::PATIENCE }
    }

    /// The same with another patience.
    pub fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    async fn fetch_document(&self, provider_url: &str) -> Result<Discovery, Unanswered> {
        let url = document_url(provider_url).ok_or(Untrue::Document)?;
        let document = expect_ok(self.outbound.get(&url).await?)?;
        Ok(Discovery::read(provider_url, &document)?)
    }

    async fn fetch_keys(&self, provider: &Discovery) -> Result<Vec<Jwk>, Unanswered> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let body = expect_ok(self.outbound.get(&provider.jwks_uri).await?)?;
        let set: Set = serde_json::from_slice(&body).map_err(|_| Unanswered::Unreadable)?;
        Ok(set.keys.iter().filter_map(PublicKey::from_jwk).take(MOST_KEYS).collect())
    }

    async fn redeem_code(&self, provider: &Discovery, grant: &Grant<'_>) -> Result<Tokens, Unanswered> {
        #[derive(Deserialize)]
        struct Issued {
            id_token: Secret<String>,
            access_token: Secret<String>,
        }
        let (form, basic) = proof(provider, grant);
        let answer = self.outbound.post_form(&provider.token_endpoint, form, basic).await?;
        if answer.status != StatusCode::OK {
            return Err(refusal(&answer));
        }
        let issued: Issued = serde_json::from_slice(&answer.body).map_err(|_| Unanswered::Unreadable)?;
        Ok(Tokens { id_token: issued.id_token, access_token: issued.access_token })
    }
}

impl IdentityProviders for HttpProviders {
    fn discover<'a>(&'a self, provider_url: &'a str) -> BoxFuture<'a, Result<Arc<Discovery>, Unanswered>> {
        let fetch = self.fetch_document(provider_url);
        self.documents
            .get(provider_url, false, |held| held.value.is_ok() && held.at.elapsed() < KEPT, fetch)
            .boxed()
    }

    fn keys<'a>(
        &'a self,
        provider: &'a Discovery,
        age: Age,
    ) -> BoxFuture<'a, Result<Arc<Vec<Jwk>>, Unanswered>> {
        let fetch = self.fetch_keys(provider);
        let renew = age == Age::Newest;
        let will_do = move |held: &Held<Vec<Jwk>>| {
            let age = held.at.elapsed();
            if renew { held.renewed && age < RENEWED_EVERY } else { held.value.is_ok() && age < KEPT }
        };
        async move { self.keys.get(provider.jwks_uri.as_str(), renew, will_do, fetch).await }.boxed()
    }

    fn redeem<'a>(
        &'a self,
        provider: &'a Discovery,
        grant: &'a Grant<'a>,
    ) -> BoxFuture<'a, Result<Tokens, Unanswered>> {
        self.redeem_code(provider, grant).boxed()
    }

    fn user_info<'a>(
        &'a self,
        provider: &'a Discovery,
        access_token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Option<Claims>, Unanswered>> {
        async move {
            let Some(endpoint) = &provider.userinfo_endpoint else { return Ok(None) };
            let body = expect_ok(self.outbound.get_as(endpoint, access_token.expose()).await?)?;
            Claims::read(&body).map(Some).ok_or(Unanswered::Unreadable)
        }
        .boxed()
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

/// The body of the request, and name and secret for its header, where the provider takes them there.
fn proof(provider: &Discovery, grant: &Grant<'_>) -> (String, Option<(String, String)>) {
    let (client, secret) = (grant.client_id, grant.client_secret.expose().as_str());
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code")
        .append_pair("code", grant.code.expose())
        .append_pair("redirect_uri", grant.redirect_uri)
        .append_pair("code_verifier", grant.verifier.expose());
    if provider.secret_in_body {
        form.append_pair("client_id", client).append_pair("client_secret", secret);
        return (form.finish(), None);
    }
    // Both are encoded as in a form before they are joined by a colon (RFC 6749, 2.3.1).
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect();
    (form.finish(), Some((encoded(client), encoded(secret))))
}

fn expect_ok(answer: Answer) -> Result<Vec<u8>, Unanswered> {
    if answer.status == StatusCode::OK {
        Ok(answer.body)
    } else {
        Err(Unanswered::Status(answer.status.as_u16()))
    }
}

/// By the standard's code where there is one; what else stands there may be anything.
fn refusal(answer: &Answer) -> Unanswered {
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let code = body.as_ref().and_then(|body| body["error"].as_str()).filter(|code| {
        (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    });
    code.map_or(Unanswered::Status(answer.status.as_u16()), |code| Unanswered::Refused(code.to_owned()))
}
