//! Ports.

use std::{io::ErrorKind, net::SocketAddr};

use anyhow::{Context, Result};
use tokio::net::TcpListener;

use crate::failure::Advice;

/// `key` is the setting by which the port is chosen.
pub async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => {
                format!("another process listens there; choose another port with --set {key}=…")
            }
            ErrorKind::PermissionDenied => {
                format!("ports below 1024 are root's; choose another with --set {key}=…")
            }
            _ => "see server.host and server.admin_host (`streamspace config show`)".to_owned(),
        };
        anyhow::Error::new(error).context(Advice::new(format!("cannot listen on {address}"), hint))
    })
}

/// The same port once more: for somebody else to accept from.
pub fn again(listener: &TcpListener) -> Result<TcpListener> {
    let duplicate = std::os::fd::AsFd::as_fd(listener).try_clone_to_owned().context("too many open files")?;
    TcpListener::from_std(std::net::TcpListener::from(duplicate)).context("the port is bound")
}
