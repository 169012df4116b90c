use std::time::Duration;

use anyhow::{Result, bail};

use crate::{Process, Program, Scratch, free_port};

/// A private Redis that keeps nothing, on a loopback port.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    process: Process,
    scratch: Scratch,
}

impl Redis {
    pub async fn start() -> Result<Self> {
        let scratch = Scratch::new("redis")?;
        for _ in 0..5 {
            let port = free_port()?;
            if let Ok(process) = serve(port, &scratch).await {
                return Ok(Self { port, process, scratch });
            }
        }
        bail!("redis-server does not start (Debian package `redis-server`)")
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub async fn kill(&self) {
        self.process.kill9().await;
    }

    /// On the same port, empty. Starts it as well when it was killed.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill9().await;
        self.process = serve(self.port, &self.scratch).await?;
        Ok(())
    }
}

async fn serve(port: u16, scratch: &Scratch) -> Result<Process> {
    let process = Program::new("redis-server")
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(["--port".into(), port.to_string()])
        .arg("--dir")
        .arg(scratch.path())
        .start()?;
    for _ in 0..2000 {
        if process.output().contains("Ready to accept connections") {
            return Ok(process);
        }
        if process.status().is_some() {
            bail!("redis-server ended:\n{}", process.output());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bail!("redis-server is not ready:\n{}", process.output())
}
