//! A client's connection to a server that is measured: kept open, one request at a time, and cheap,
//! since the load shares the machine with what it loads.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{
    Method, Request, StatusCode,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// What is sent.
pub struct Ask<'a> {
    pub method: Method,
    pub path: &'a str,
    /// What says who asks.
    pub header: Option<(&'static str, &'a str)>,
    pub body: Bytes,
}

/// How long anything may take that is not there to wait.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let open = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            anyhow::Ok(handshake(TokioIo::new(stream)).await?)
        };
        let (sender, connection) =
            timeout(PATIENCE, open).await.context("connecting")?.context("connecting")?;
        // Ends with the sender; what goes wrong the sender hears of too.
        tokio::spawn(connection);
        Ok(Self { sender, host: address.to_string() })
    }

    pub async fn get(&mut self, path: &str, key: &str) -> Result<(StatusCode, Bytes)> {
        self.get_within(path, key, PATIENCE).await
    }

    pub async fn get_within(
        &mut self,
        path: &str,
        key: &str,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes)> {
        let ask = Ask { method: Method::GET, path, header: Some(("x-api-key", key)), body: Bytes::new() };
        self.send(ask, patience).await
    }

    pub async fn send(&mut self, ask: Ask<'_>, patience: Duration) -> Result<(StatusCode, Bytes)> {
        let Ask { method, path, header, body } = ask;
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body))?;
        let answer = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        timeout(patience, answer).await.with_context(|| format!("no answer to {path} in {patience:?}"))?
    }
}
