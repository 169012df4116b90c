//! Identity providers, as this slice needs them.

use std::{fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use streamspace_common::{Secret, jws::Jwk};

use super::{Claims, Discovery, Unanswered};

/// Talks to identity providers. Every call ends within seconds, reads no more than it can hold, and
/// follows no redirect.
pub trait IdentityProviders: fmt::Debug + Send + Sync {
    /// What the provider publishes of itself, at most an hour old.
    fn discover<'a>(&'a self, provider_url: &'a str) -> BoxFuture<'a, Result<Arc<Discovery>, Unanswered>>;

    /// The keys that it signs with.
    fn keys<'a>(
        &'a self,
        provider: &'a Discovery,
        age: Age,
    ) -> BoxFuture<'a, Result<Arc<Vec<Jwk>>, Unanswered>>;

    /// Exchanges the code that a browser brought back.
    fn redeem<'a>(
        &'a self,
        provider: &'a Discovery,
        grant: &'a Grant<'a>,
    ) -> BoxFuture<'a, Result<Tokens, Unanswered>>;

    /// What the provider says of the person of an access token; `None` where it answers no such questions.
    fn user_info<'a>(
        &'a self,
        provider: &'a Discovery,
        access_token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Option<Claims>, Unanswered>>;

    /// How long all the calls of one sign-in may take together: a browser waits meanwhile.
    fn patience(&self) -> Duration;
}

/// How old the keys may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// An hour.
    Known,
    /// A token names a key that is not among those known. They are asked for again, though not more
    /// than once in ten seconds: a provider is not to be hammered with invented names.
    Newest,
}

/// A code with what proves that it was given to us.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    pub client_id: &'a str,
    pub client_secret: &'a Secret<String>,
    pub redirect_uri: &'a str,
    pub code: &'a Secret<String>,
    /// PKCE's.
    pub verifier: &'a Secret<String>,
}

#[derive(Debug)]
pub struct Tokens {
    pub id_token: Secret<String>,
    pub access_token: Secret<String>,
}
