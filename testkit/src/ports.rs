use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// A loopback port that nobody listens on now. Another process may take it before its user does, so
/// who starts a server on it starts again on another one when it could not bind.
pub fn free_port() -> Result<u16> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("binding a loopback port")?;
    Ok(probe.local_addr()?.port())
}
