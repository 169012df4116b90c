//! Signing in through the browser: it is sent to the server with a challenge, and comes back to a port of
//! this machine with a code (RFC 8252, RFC 7636).

use std::{
    env,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use streamspace_admin::{Patience, serve_http};
use streamspace_common::Secret;
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    client::{
        api::{Api, Call},
        keyring::find_program,
        session::SignedIn,
    },
    console,
    failure::Advice,
};

/// As long as the server waits for an answer to its question.
const PATIENCE: Duration = Duration::from_secs(300);
/// For the last page to reach the browser.
const FAREWELL: Duration = Duration::from_secs(2);
/// A browser opens some connections before it needs them.
const MOST_CONNECTIONS: usize = 16;

pub async fn sign_in(api: &Api) -> Result<SignedIn> {
    let listener = listen().await?;
    let redirect_uri = format!("http://{}/callback", listener.local_addr().context("the port is bound")?);
    let (state, verifier) = (random(), random());
    let page = api.address(
        &Call::get(["auth", "cli", "authorize"])
            .query("redirect_uri", Some(&redirect_uri))
            .query("state", Some(state.expose()))
            .query("code_challenge", Some(URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose()))))
            .query("code_challenge_method", Some("S256")),
    );
    open(&page);
    let code = wait(listener, state).await?;
    let shown = json!({
        "code": code.expose(), "codeVerifier": verifier.expose(), "redirectUri": redirect_uri,
    });
    Ok(api.send_once(&Call::post(["auth", "cli", "token"]).body(shown)).await?)
}

fn random() -> Secret<String> {
    Secret::new(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

async fn listen() -> Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await {
        Ok(listener) => Ok(listener),
        Err(_) => {
            TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.context("no port of this machine is free")
        }
    }
}

/// What opens a page, where somebody could see it.
pub fn opener() -> Option<PathBuf> {
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| env::var_os(name).is_some());
    find_program("xdg-open").filter(|_| has_screen)
}

fn open(page: &Url) {
    let opened = opener().map(|program| {
        let mut command = Command::new(program);
        command.arg(page.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    });
    match opened {
        Some(Ok(_)) => console::say("Go on in your browser. If it shows nothing, open this address in it:"),
        _ => console::say("Open this address in a browser of this machine:"),
    }
    console::say(format_args!("  {page}"));
}

/// What the browser comes back with.
#[derive(Deserialize)]
struct Answer {
    state: Secret<String>,
    code: Option<Secret<String>>,
    error: Option<String>,
}

#[derive(Clone)]
struct Waiting {
    state: Secret<String>,
    answers: mpsc::Sender<Answer>,
}

async fn wait(listener: TcpListener, state: Secret<String>) -> Result<Secret<String>> {
    let (answers, mut answered) = mpsc::channel(1);
    let router = Router::new().route("/callback", get(come_back)).with_state(Waiting { state, answers });
    let stop = CancellationToken::new();
    let mut serving =
        tokio::spawn(serve_http(listener, router, Patience::with(MOST_CONNECTIONS), stop.clone()));
    let answer = timeout(PATIENCE, answered.recv()).await;
    stop.cancel();
    if timeout(FAREWELL, &mut serving).await.is_err() {
        serving.abort();
    }
    let again = "`streamspace login --browser` asks again";
    let answer = match answer {
        Ok(Some(answer)) => answer,
        _ => {
            let message = format!("nobody has signed in within {} minutes", PATIENCE.as_secs() / 60);
            return Err(Advice::new(message, again).into());
        }
    };
    answer.code.ok_or_else(|| {
        let message = match answer.error.as_deref() {
            Some("access_denied") => "it was not allowed in the browser".to_owned(),
            other => format!("the server has let nobody in: {}", other.unwrap_or("it does not say why")),
        };
        Advice::new(message, again).into()
    })
}

/// Whoever does not know the state was not sent by the page that this command has opened: it waits on.
async fn come_back(State(waiting): State<Waiting>, Query(answer): Query<Answer>) -> Response {
    if answer.state != waiting.state {
        return page(StatusCode::BAD_REQUEST, "This is no answer to what the command line has asked.");
    }
    let told = match answer.code.is_some() {
        true => "The command line goes on. You can close this page.",
        false => "The command line was not let in. You can close this page.",
    };
    // The first answer is the one that counts.
    waiting.answers.try_send(answer).ok();
    page(StatusCode::OK, told)
}

fn page(status: StatusCode, text: &str) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let html =
        format!("<!doctype html>\n<html lang=\"en\">\n<title>StreamSpace</title>\n<p>{text}</p>\n</html>\n");
    (status, headers, Html(html)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(port: u16, query: &str) -> u16 {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("builds");
        client
            .get(format!("http://127.0.0.1:{port}/{query}"))
            .send()
            .await
            .expect("answered")
            .status()
            .as_u16()
    }

    async fn answered(queries: [(&str, u16); 3]) -> Result<Secret<String>> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = listen().await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        // One that says nothing, as browsers open some.
        let _silent = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("taken");
        let waiting = tokio::spawn(wait(listener, "ours".into()));
        for (query, status) in queries {
            assert_eq!(asked(port, query).await, status, "{query}");
        }
        waiting.await.expect("no panic")
    }

    #[tokio::test]
    async fn only_who_knows_the_state_is_an_answer() {
        let queries = [
            ("favicon.ico", 404),
            ("callback?state=guessed&code=theirs", 400),
            ("callback?state=ours&code=cc_x", 200),
        ];
        assert_eq!(answered(queries).await.expect("a code").expose(), "cc_x");
    }

    #[tokio::test]
    async fn a_no_is_told() {
        let queries = [
            ("callback?code=theirs", 400),
            ("callback?state=guessed&error=access_denied", 400),
            ("callback?state=ours&error=access_denied", 200),
        ];
        let error = answered(queries).await.expect_err("it was refused");
        assert_eq!(error.to_string(), "it was not allowed in the browser");
    }
}
