//! A client's connection to a server that is measured: kept open, one request at a time, and cheap,
//! since the load shares the machine with what it loads.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// How long anything may take that is not there to wait.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Connection {
    sender: SendRequest<Empty<Bytes>>,
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
        let request = Request::get(path).header(HOST, &self.host).header("x-api-key", key);
        let request = request.body(Empty::new())?;
        let answer = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        timeout(patience, answer).await.with_context(|| format!("no answer to {path} in {patience:?}"))?
    }
}
