//! A sign-in that goes on: its access token is renewed shortly before it ends, or when the server does
//! not take it.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;
use streamspace_common::Secret;
use tokio::sync::Mutex;
use url::Url;

use super::{
    api::{Api, Call},
    credentials::{Login, Tokens},
    error::Error,
    store::Store,
};

/// What the server answers to whoever it lets in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedIn {
    access_token: Secret<String>,
    refresh_token: Secret<String>,
    /// Seconds.
    expires_in: u32,
    pub user: Person,
    pub tenant: Tenant,
}

#[derive(Debug, Deserialize)]
pub struct Person {
    pub id: String,
    pub email: String,
}

#[derive(Debug, Deserialize)]
pub struct Tenant {
    pub name: String,
}

impl SignedIn {
    pub fn tokens(&self) -> Tokens {
        Tokens {
            access: self.access_token.clone(),
            refresh: self.refresh_token.clone(),
            ends_at: Timestamp::now() + SignedDuration::from_secs(self.expires_in.into()),
            user: self.user.id.clone(),
        }
    }
}

#[derive(Debug)]
pub struct Session {
    store: Store,
    url: Url,
    tokens: Mutex<Tokens>,
}

impl Session {
    pub fn new(store: Store, url: Url, tokens: Tokens) -> Self {
        Self { store, url, tokens: Mutex::new(tokens) }
    }

    /// An access token that is good for a while.
    pub async fn token(&self) -> Result<Secret<String>, Error> {
        let mut tokens = self.tokens.lock().await;
        if !tokens.are_fresh() {
            *tokens = self.renew(&tokens).await?;
        }
        Ok(tokens.access.clone())
    }

    /// Another than the one that the server did not take.
    pub async fn token_after(&self, refused: &Secret<String>) -> Result<Secret<String>, Error> {
        let mut tokens = self.tokens.lock().await;
        if tokens.access == *refused {
            *tokens = self.renew(&tokens).await?;
        }
        Ok(tokens.access.clone())
    }

    async fn renew(&self, old: &Tokens) -> Result<Tokens, Error> {
        let mut locked = self.store.lock().await.map_err(Error::Unkept)?;
        let over = || Error::SignedOut { url: self.url.clone() };
        // Logged out, or somebody else is in by now: this command goes on as nobody else.
        let saved = match locked.login(&self.url).await.map_err(Error::Unkept)? {
            Some(Login::Tokens(saved)) if saved.user == old.user => saved,
            _ => return Err(over()),
        };
        // Another command was faster.
        if saved.refresh != old.refresh && saved.are_fresh() {
            return Ok(saved);
        }
        let call = Call::post(["auth", "refresh"]).body(json!({ "refreshToken": saved.refresh.expose() }));
        let api = Api::of_nobody(self.url.clone()).map_err(Error::Unkept)?;
        // Sent once: the server may have taken it although no answer came, and the second time would end
        // the sign-in.
        let next: SignedIn =
            api.send_once(&call).await.map_err(|error| match error.is_unauthenticated() {
                true => over(),
                false => error,
            })?;
        let next = next.tokens();
        locked.renew(&self.url, &Login::Tokens(next.clone())).await.map_err(Error::Unkept)?;
        Ok(next)
    }
}
