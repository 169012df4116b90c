//! Requests to a server: one function builds the client, one sends, and repeats what may be
//! repeated.

use std::time::Duration;

use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT},
    redirect::Policy,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use streamspace_common::Secret;
use url::{Host, Url};
use uuid::Uuid;

use super::{
    error::Error,
    problem::Problem,
    server::{Pass, Server},
};
use crate::failure::Advice;

/// How long a server may take for an answer that it need not wait for.
const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream sends something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
const ATTEMPTS: u32 = 4;
/// A server that asks for more patience than this is told about instead.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest page that the API gives.
const PAGE: usize = 200;

pub struct Api {
    http: reqwest::Client,
    server: Server,
}

/// A request that can be sent again.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(String, String)>,
    body: Option<serde_json::Value>,
    /// The server replays its answer to the same key, so a POST can be repeated too.
    idempotency_key: Option<String>,
    timeout: Duration,
}

impl Call {
    /// `path` follows `/api/v1/`; its parts may hold anything.
    pub fn new<'a>(method: Method, path: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            idempotency_key: (method == Method::POST).then(|| Uuid::new_v4().to_string()),
            method,
            path: path.into_iter().map(str::to_owned).collect(),
            query: Vec::new(),
            body: None,
            timeout: TIMEOUT,
        }
    }

    pub fn get<'a>(path: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn post<'a>(path: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(Method::POST, path)
    }

    pub fn query(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.query.push((name.to_owned(), value.to_string()));
        }
        self
    }

    pub fn body(mut self, body: serde_json::Value) -> Self {
        self.body = Some(body);
        self
    }

    /// The server waits this long before it answers.
    pub fn waits(mut self, wait: Duration) -> Self {
        self.timeout = wait + TIMEOUT;
        self.query("wait", Some(format!("{}s", wait.as_secs().max(1))))
    }

    /// After an answer was lost, a second DELETE would tell that the thing is not there.
    fn is_repeatable(&self) -> bool {
        self.method != Method::DELETE
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

impl Api {
    pub fn new(server: Server) -> Result<Self, anyhow::Error> {
        Ok(Self { http: build_client(&server.url)?, server })
    }

    /// For whoever is about to sign in.
    pub fn of_nobody(url: Url) -> Result<Self, anyhow::Error> {
        Self::new(Server { url, pass: Pass::Nobody })
    }

    pub fn url(&self) -> &Url {
        &self.server.url
    }

    pub fn pass(&self) -> &Pass {
        &self.server.pass
    }

    /// Where a call goes.
    pub fn address(&self, call: &Call) -> Url {
        let mut url = self.server.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1"]).extend(&call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        url
    }

    /// Sends, and sends again what failed for a reason that passes.
    pub async fn send<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        let mut attempt = 1;
        loop {
            let error = match self.send_once(call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let may_repeat = error.is_transient() && (call.is_repeatable() || error.never_arrived());
            let pause = error.retry_after().unwrap_or_else(|| backoff(attempt));
            if !may_repeat || attempt == ATTEMPTS || pause > PATIENCE {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    pub async fn send_once<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        let json = |request: RequestBuilder| request.timeout(call.timeout).header(ACCEPT, "application/json");
        let response = self.begin(call, json).await?;
        let text = response.text().await.map_err(|error| Error::of_transport(error, self.url()))?;
        // 204 has no body; whoever asks for one gets a null.
        let text = if text.is_empty() { "null" } else { &text };
        serde_json::from_str(text).map_err(|error| self.unreadable(error))
    }

    /// Starts a stream of server-sent events.
    pub async fn stream(&self, call: &Call, last_event_id: Option<&str>) -> Result<Response, Error> {
        let last_event_id = last_event_id.and_then(|id| HeaderValue::from_str(id).ok());
        let events = |request: RequestBuilder| {
            let request = request.header(ACCEPT, "text/event-stream");
            match &last_event_id {
                Some(id) => request.header("last-event-id", id),
                None => request,
            }
        };
        self.begin(call, events).await
    }

    /// Starts an answer that may be long.
    pub async fn download(&self, call: &Call) -> Result<Response, Error> {
        self.begin(call, |request| request).await
    }

    pub async fn chunk(&self, answer: &mut Response) -> Result<Option<Vec<u8>>, Error> {
        let chunk = answer.chunk().await.map_err(|error| Error::of_transport(error, self.url()))?;
        Ok(chunk.map(Vec::from))
    }

    /// Follows `nextCursor` until `limit` items or the end. The second value: whether there is more.
    pub async fn list(&self, call: &Call, limit: usize) -> Result<(Vec<Box<RawValue>>, bool), Error> {
        let mut items = Vec::new();
        let mut cursor = None;
        loop {
            let wanted = (limit - items.len()).min(PAGE);
            let call = call.clone().query("limit", Some(wanted)).query("cursor", cursor.as_ref());
            let page: Page = self.send(&call).await?;
            items.extend(page.items);
            // A page may be short, even empty, and not be the last one.
            let is_last = page.next_cursor.is_none() || page.next_cursor == cursor;
            if items.len() >= limit || is_last {
                let has_more = items.len() > limit || !is_last;
                items.truncate(limit);
                return Ok((items, has_more));
            }
            cursor = page.next_cursor;
        }
    }

    /// Sends, as whoever this is. A sign-in whose token is not taken sends again with the next.
    async fn begin(
        &self,
        call: &Call,
        dress: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let send = async |token: Option<&Secret<String>>| {
            self.accept(dress(self.request(call, token)).send().await).await
        };
        let session = match &self.server.pass {
            Pass::Nobody => return send(None).await,
            Pass::Key { key, .. } => return send(Some(key)).await,
            Pass::SignIn(session) => session,
        };
        // Boxed: renewing sends too, as nobody.
        let token = Box::pin(session.token()).await?;
        match send(Some(&token)).await {
            Err(error) if error.is_unauthenticated() => {
                let next = Box::pin(session.token_after(&token)).await?;
                send(Some(&next)).await
            }
            answer => answer,
        }
    }

    fn request(&self, call: &Call, token: Option<&Secret<String>>) -> RequestBuilder {
        let mut request = self.http.request(call.method.clone(), self.address(call));
        match token {
            Some(token) => {
                let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                    .unwrap_or(HeaderValue::from_static(""));
                bearer.set_sensitive(true);
                request = request.header(AUTHORIZATION, bearer);
            }
            // What a sign-in is called in the list of one's own.
            None => request = request.header(USER_AGENT, device()),
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        match &call.body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    async fn accept(&self, sent: Result<Response, reqwest::Error>) -> Result<Response, Error> {
        let response = sent.map_err(|error| Error::of_transport(error, self.url()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status.is_redirection() {
            let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
            return Err(Error::Moved {
                url: self.url().clone(),
                target: target.unwrap_or("nowhere").to_owned(),
            });
        }
        Err(self.refusal(status, response).await)
    }

    async fn refusal(&self, status: StatusCode, response: Response) -> Error {
        let retry_after = retry_after(response.headers());
        let problem = response.text().await.ok().and_then(|text| serde_json::from_str::<Problem>(&text).ok());
        let is_ours = problem.as_ref().is_some_and(|problem| !problem.title.is_empty());
        let mut problem = problem.filter(|_| is_ours).unwrap_or_else(|| Problem::of_status(status));
        problem.status = status.as_u16();
        Error::Refused {
            problem: Box::new(problem),
            is_ours,
            retry_after,
            key: match &self.server.pass {
                Pass::Key { origin, .. } => Some(origin.clone()),
                Pass::Nobody | Pass::SignIn(_) => None,
            },
        }
    }

    pub fn unreadable(&self, error: impl ToString) -> Error {
        Error::Unreadable { url: self.url().clone(), reason: error.to_string() }
    }
}

const AGENT: &str = concat!("streamspace-cli/", env!("CARGO_PKG_VERSION"));

/// This command on this machine.
fn device() -> HeaderValue {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    HeaderValue::try_from(format!("{AGENT} ({})", host.trim())).unwrap_or(HeaderValue::from_static(AGENT))
}

pub fn build_client(url: &Url) -> Result<reqwest::Client, anyhow::Error> {
    // reqwest is built without a cryptography provider of its own and panics when none is
    // installed. An error says that one is.
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut builder = reqwest::Client::builder()
        .user_agent(AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE)
        // A redirect would take the key along to wherever it points.
        .redirect(Policy::none());
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    if url.scheme() == "http" {
        // A machine without certificate authorities can still reach its own server.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| {
        anyhow::Error::new(error).context(Advice::new(
            "encrypted connections cannot be made",
            "install the system's certificate authorities (Debian: ca-certificates), or name some with SSL_CERT_FILE",
        ))
    })
}

/// Whether what is sent there stays on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// In seconds; a date there is left to the backoff.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// 0.2, 0.4, 0.8 s, each less up to a half, so that many clients do not come back at once.
pub fn backoff(attempt: u32) -> Duration {
    let longest = Duration::from_millis(100) * 2_u32.pow(attempt.min(6));
    longest.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::server::{KeyOrigin, parse_url};

    fn api(url: &str) -> Api {
        let url = parse_url(url).expect("valid");
        let pass = Pass::Key { key: "sk_x".into(), origin: KeyOrigin::Input };
        Api::new(Server { url, pass }).expect("builds")
    }

    #[test]
    fn a_request_keeps_the_servers_path_and_escapes_ours() {
        let call = Call::get(["queues", "a/b ?"]).query("limit", Some(5)).query("cursor", None::<String>);
        let request =
            api("https://example.com/space/").request(&call, Some(&"sk_x".into())).build().expect("builds");
        assert_eq!(request.url().as_str(), "https://example.com/space/api/v1/queues/a%2Fb%20%3F?limit=5");
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer sk_x");
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
        assert!(!request.headers().contains_key("idempotency-key"));
    }

    #[test]
    fn a_post_carries_the_same_key_each_time_it_is_sent() {
        let (api, call) = (api("http://localhost:1"), Call::post(["jobs", "x", "cancel"]));
        let key = |call: &Call| {
            api.request(call, None).build().expect("builds").headers()["idempotency-key"]
                .to_str()
                .ok()
                .map(str::to_owned)
        };
        assert_eq!(key(&call), key(&call.clone()));
        assert_ne!(key(&call), key(&Call::post(["jobs", "x", "cancel"])));
    }

    #[tokio::test]
    async fn nobody_there_is_told_with_what_to_do() {
        let error = api("http://127.0.0.1:1").send::<()>(&Call::get(["jobs"])).await.expect_err("port 1");
        assert!(error.never_arrived(), "{error:?}");
        assert!(
            error.to_string().starts_with("http://127.0.0.1:1/ cannot be reached: Connection refused"),
            "{error}"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("streamspace up")));
    }

    #[test]
    fn pauses_grow_and_end() {
        for (attempt, longest) in [(1, 200), (2, 400), (3, 800), (40, 6400)] {
            let pause = backoff(attempt);
            assert!(pause <= Duration::from_millis(longest) && pause >= Duration::from_millis(longest / 2));
        }
    }
}
