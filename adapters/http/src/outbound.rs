//! The one way out.

use std::{error::Error, sync::Arc, time::Duration};

use reqwest::{
    Client, RequestBuilder, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
    redirect,
};
use streamspace_common::{config::Networks, web::is_confidential};
use streamspace_domain::oidc::Unanswered;
use url::Url;

use crate::targets::{Private, Targets};

const LARGEST: usize = 1 << 20;

/// Makes requests that end within seconds, hold at most 1 MiB and go nowhere that they should not.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Or why there is none: a machine without certificate authorities runs all that needs none.
    client: Result<Client, String>,
    targets: Targets,
    patience: Duration,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

impl Outbound {
    /// How long an answer may take, from the first packet to the last byte.
    pub const PATIENCE: Duration = Duration::from_secs(10);

    /// `allowed`: private addresses that may be reached all the same.
    pub fn new(allowed: Networks, patience: Duration) -> Self {
        // reqwest panics where no provider of cryptography was chosen; whoever chose one before wins.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let targets = Targets::new(allowed);
        let client = Client::builder()
            .user_agent(concat!("streamspace/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            // A proxy would resolve the names, and so reach what we refuse.
            .no_proxy()
            .dns_resolver(Arc::new(targets.clone()))
            .timeout(patience)
            .pool_max_idle_per_host(2)
            .build();
        Self { client: client.map_err(|error| deepest(&error).to_string()), targets, patience }
    }

    pub(crate) async fn get(&self, url: &Url) -> Result<Answer, Unanswered> {
        self.send(url, |client| client.get(url.clone())).await
    }

    pub(crate) async fn get_as(&self, url: &Url, bearer: &str) -> Result<Answer, Unanswered> {
        self.send(url, |client| client.get(url.clone()).bearer_auth(bearer)).await
    }

    /// With `basic` name and secret in the header.
    pub(crate) async fn post_form(
        &self,
        url: &Url,
        form: String,
        basic: Option<(String, String)>,
    ) -> Result<Answer, Unanswered> {
        let form_type = "application/x-www-form-urlencoded";
        self.send(url, |client| {
            let request = client.post(url.clone()).header(CONTENT_TYPE, form_type).body(form);
            match basic {
                Some((name, secret)) => request.basic_auth(name, Some(secret)),
                None => request,
            }
        })
        .await
    }

    async fn send(
        &self,
        url: &Url,
        request: impl FnOnce(&Client) -> RequestBuilder,
    ) -> Result<Answer, Unanswered> {
        if !is_confidential(url) {
            return Err(Unanswered::Unreachable("the URL is not https".to_owned()));
        }
        self.targets.check(url).map_err(|Private| Unanswered::Private)?;
        let client = self.client.as_ref().map_err(|error| Unanswered::Unreachable(error.clone()))?;
        let failed = |error| failed(error, self.patience);
        let mut response = request(client).header(ACCEPT, "application/json").send().await.map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > LARGEST {
                return Err(Unanswered::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: response.status(), body })
    }
}

/// Told by its cause: "error sending request" helps nobody, and it holds the URL, which may be secret.
fn failed(error: reqwest::Error, patience: Duration) -> Unanswered {
    if error.is_timeout() {
        return Unanswered::Unreachable(format!("no answer within {patience:?}"));
    }
    let error = error.without_url();
    let cause = deepest(&error);
    if cause.is::<Private>() { Unanswered::Private } else { Unanswered::Unreachable(cause.to_string()) }
}

fn deepest<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(deeper) = error.source() {
        error = deeper;
    }
    error
}
