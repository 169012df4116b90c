//! Ports.

use std::{io::ErrorKind, net::SocketAddr};

use anyhow::Result;
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
