//! The API as a process, and those who call it.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::{Client, Method, Response};
use serde_json::Value;
use streamspace_common::{Actor, PLATFORM, Role as Rights, TenantId};
use streamspace_domain::{
    api_keys::{self, NewApiKey, Owner},
    identity::{self, NewOwner, NewTenant, Tier},
};
use streamspace_queue::Request;
use streamspace_testkit::Process;

use super::{Lab, Role, SOON};

/// A tenant with a key of its owner, who is no platform administrator, and one of a viewer.
pub struct Organisation {
    pub tenant: TenantId,
    pub owner: String,
    pub viewer: String,
}

pub struct Api {
    pub process: Process,
    base: String,
    client: Client,
}

impl Lab {
    pub async fn api(&self) -> Result<Api> {
        self.api_as(self.role("api")).await
    }

    /// One that publishes and hears live events over this Redis.
    pub async fn api_with_redis(&self, url: &str) -> Result<Api> {
        self.api_as(self.role("api").redis(url)).await
    }

    async fn api_as(&self, role: Role) -> Result<Api> {
        let process = role.start().await;
        let line = process.line("fleet ready", SOON).await;
        let port = line.rsplit(' ').next().context("the line ends with the port")?.to_owned();
        // Nothing here is encrypted, but the client is not built without.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder().timeout(Duration::from_secs(30)).build()?;
        Ok(Api { process, base: format!("http://127.0.0.1:{port}"), client })
    }

    pub async fn organisation(&self, name: &str) -> Result<Organisation> {
        let mut tx = self.queue.begin(Actor::system(PLATFORM), Request::default());
        let owner = NewOwner {
            email: format!("{name}@example.com"),
            name: name.into(),
            platform_admin: false,
            password_hash: None,
            email_verified: false,
        };
        let new =
            NewTenant { name: name.into(), slug: None, contact_email: None, tier: Tier::Standard, owner };
        let (tenant, person) = identity::create_tenant(&mut tx, new).await?;
        let mut keys = vec![];
        for owner in [Owner::User(person.id), Owner::Tenant(Rights::Viewer)] {
            let scopes = vec!["*".into()];
            let new = NewApiKey { name: name.into(), owner, scopes, hourly_limit: 100_000, expires_at: None };
            let (_, secret) = api_keys::create_in(&mut tx, tenant.id, new).await?;
            keys.push(secret.expose().clone());
        }
        tx.commit().await?;
        let viewer = keys.pop().context("two keys were made")?;
        let owner = keys.pop().context("two keys were made")?;
        Ok(Organisation { tenant: tenant.id, owner, viewer })
    }
}

impl Api {
    /// One request; `key` is the caller's, where there is one.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Response> {
        let mut request =
            self.client.request(Method::from_bytes(method.as_bytes())?, format!("{}{path}", self.base));
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Ok(request.send().await?)
    }

    /// A POST without a body that may be sent twice and acts once.
    pub async fn post_once(&self, path: &str, key: &str, idempotency_key: &str) -> Result<Response> {
        let request = self.client.post(format!("{}{path}", self.base));
        Ok(request.header("x-api-key", key).header("idempotency-key", idempotency_key).send().await?)
    }
}
