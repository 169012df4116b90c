//! OpenID providers, as processes of node: a certified one, and one that lies.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Browser, Process, Program};

const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// A provider on a loopback port. What it can be told is at the head of its script.
#[derive(Debug)]
pub struct OidcProvider {
    issuer: String,
    _process: Process,
}

impl OidcProvider {
    /// npm's `oidc-provider`, which is certified. It signs people in as their `login_hint`, without a
    /// page, by the same redirects as ever.
    pub async fn start(settings: &Value) -> Result<Self> {
        run("server.mjs", settings).await
    }

    /// One that says what `settings` tell it to.
    pub async fn lying(settings: &Value) -> Result<Self> {
        run("liar.mjs", settings).await
    }

    /// Its URL.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Members of the settings, from the next request on.
    pub async fn change(&self, settings: &Value) -> Result<()> {
        self.control("POST", &settings.to_string()).await.map(drop)
    }

    /// How often a path was asked for.
    pub async fn calls(&self, path: &str) -> Result<u64> {
        Ok(self.control("GET", "").await?[path].as_u64().unwrap_or(0))
    }

    async fn control(&self, method: &str, body: &str) -> Result<Value> {
        let page = Browser::new().send(method, &format!("{}/test", self.issuer), &[], body).await?;
        ensure!(page.status == 200, "the provider refuses: {page:?}");
        Ok(serde_json::from_str(&page.body)?)
    }
}

async fn run(script: &str, settings: &Value) -> Result<OidcProvider> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("oidc-provider");
    ensure!(folder.join("node_modules").exists(), "its npm packages are missing: run scripts/setup test");
    let process = Program::new("node")
        .arg(script)
        .dir(folder)
        .env("SETTINGS", settings.to_string())
        .named(script)
        .start()
        .context("starting node (Debian package `nodejs`)")?;
    let line = process.line("listening on ", STARTS_WITHIN).await;
    let (_, issuer) = line.split_once("listening on ").context("just found")?;
    Ok(OidcProvider { issuer: issuer.to_owned(), _process: process })
}
