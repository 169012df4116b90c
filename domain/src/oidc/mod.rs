//! Signing in through an identity provider (OpenID Connect): the code flow with PKCE, state and nonce.
//!
//! A provider is a tenant's, set up by its admins, or the operator's, in the configuration. What it says
//! is checked in `id_token`, whose account it speaks of is found in `account`, and what binds its
//! answer to the browser that asked is explained in `trip`.

mod account;
mod claims;
mod discovery;
mod error;
mod id_token;
mod identities_store;
mod mapping;
mod model;
mod port;
mod providers;
mod sign_in;
mod store;
mod trip;

use std::sync::Arc;

use sqlx::PgConnection;
use streamspace_common::{Config, MasterKeys, TenantId, UserId};
use streamspace_queue::Queue;

pub use self::{
    claims::Claims,
    discovery::{Discovery, Login, document_url, is_provider_url},
    error::{Error, Unanswered, Untrue},
    id_token::{Expected, verify},
    model::{GroupMapping, Provider, Settings, Whose},
    port::{Age, Grant, IdentityProviders, Tokens},
    providers::Listed,
    sign_in::{Arrival, Arrived, Departure, LIFETIME, Sent},
};
use crate::sign_in::SignIns;

/// The identity providers, of one process. Clones share it.
#[derive(Clone)]
pub struct Oidc(Arc<Inner>);

struct Inner {
    queue: Queue,
    master: MasterKeys,
    port: Arc<dyn IdentityProviders>,
    sign_ins: SignIns,
    /// Of the configuration.
    configured: Vec<Provider>,
    public_url: String,
}

impl Oidc {
    pub fn new(
        queue: Queue,
        master: MasterKeys,
        port: Arc<dyn IdentityProviders>,
        sign_ins: SignIns,
        config: &Config,
    ) -> Self {
        Self(Arc::new(Inner {
            queue,
            master,
            port,
            sign_ins,
            configured: config.auth.oidc.0.iter().map(Provider::from).collect(),
            public_url: config.server.public_url(),
        }))
    }

    fn configured(&self) -> impl Iterator<Item = &Provider> {
        self.0.configured.iter()
    }

    /// One that people may sign in through. Of one name the configuration's counts.
    async fn find(&self, name: &str) -> Result<Provider, Error> {
        let found = match self.configured().find(|provider| provider.settings.name == name) {
            Some(provider) => Some(provider.clone()),
            None => store::by_name(&mut *self.0.queue.read().await?, name).await?,
        };
        found.filter(|provider| provider.settings.enabled).ok_or(Error::NoProvider)
    }

    /// Where the provider sends browsers back to; it knows this address too.
    pub fn redirect_uri(&self, provider: &Provider) -> String {
        let settings = &provider.settings;
        settings
            .redirect_uri
            .clone()
            .unwrap_or_else(|| format!("{}/api/v1/auth/oidc/{}/callback", self.0.public_url, settings.name))
    }
}

/// Forgets browsers that did not come back; answers whether there may be more.
pub(crate) async fn prune(conn: &mut PgConnection, most: i64) -> sqlx::Result<bool> {
    Ok(store::prune(conn, most).await? >= most.unsigned_abs())
}

/// Forgets who somebody is said to be that nobody has proven; answers how many identities there were.
pub(crate) async fn forget_unproven(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<u64> {
    identities_store::delete_unproven(conn, tenant, user).await
}
