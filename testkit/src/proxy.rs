//! Connections that a test can cut, hold up or refuse.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A loopback port in front of another. Ends with the value, and with the runtime it was made in.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<watch::Sender<State>>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Bytes stay where they are; connections look alive and say nothing.
    silent: bool,
    refusing: bool,
    /// Connections made before the newest cut are closed.
    cuts: u64,
}

impl Proxy {
    pub async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("binding the proxy")?;
        let own = listener.local_addr()?.port();
        let state = Arc::new(watch::Sender::new(State::default()));
        let accepting = tokio::spawn(accept(listener, (Ipv4Addr::LOCALHOST, port).into(), state.clone()));
        Ok(Self { port: own, state, accepting })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections; new ones are served.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Closes all connections and lets none in until `restore`.
    pub fn refuse(&self) {
        self.state.send_modify(|state| {
            state.refusing = true;
            state.cuts += 1;
        });
    }

    /// Bytes stop moving, on open connections and on new ones: a cable pulled, a packet filter.
    pub fn silence(&self) {
        self.state.send_modify(|state| state.silent = true);
    }

    /// Everything moves again; what was held back is delivered.
    pub fn restore(&self) {
        self.state.send_modify(|state| (state.silent, state.refusing) = (false, false));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, state: Arc<watch::Sender<State>>) {
    while let Ok((client, _)) = listener.accept().await {
        if state.borrow().refusing {
            continue;
        }
        tokio::spawn(connect(client, target, state.subscribe()));
    }
}

async fn connect(client: TcpStream, target: SocketAddr, state: watch::Receiver<State>) {
    let made_at = state.borrow().cuts;
    let passing = async {
        audible(&mut state.clone()).await;
        let Ok(server) = TcpStream::connect(target).await else { return };
        // Both ends think that they talk directly; Nagle between them would show in latencies.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client, server) = (client.into_split(), server.into_split());
        tokio::join!(pass(client.0, server.1, state.clone()), pass(server.0, client.1, state.clone()));
    };
    let mut cuts = state.clone();
    tokio::select! {
        () = passing => {}
        _ = cuts.wait_for(|state| state.cuts > made_at) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        audible(&mut state).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn audible(state: &mut watch::Receiver<State>) {
    // An error means that the proxy is gone, and with it whoever would have cared.
    let _ = state.wait_for(|state| !state.silent).await;
}
