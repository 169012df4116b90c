//! Ctrl-C, SIGTERM and a closed terminal: the first asks to drain, the second ends at once.

use std::process::exit;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::console;

/// 128 and the number of SIGINT, as a shell has it.
const INTERRUPTED: i32 = 130;

/// Cancelled by the first signal. `at_once` runs before the second one ends the process.
pub fn shutdown(at_once: impl FnOnce() + Send + 'static) -> Result<CancellationToken> {
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(|kind| signal(kind).context("cannot listen for signals"))
        .collect::<Result<Vec<_>>>()?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        next(&mut signals).await;
        cancelled.cancel();
        if console::is_person() {
            console::say("\nDraining; press Ctrl-C again to end at once");
        }
        next(&mut signals).await;
        at_once();
        exit(INTERRUPTED);
    });
    Ok(token)
}

async fn next(signals: &mut [Signal]) {
    futures::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
}
