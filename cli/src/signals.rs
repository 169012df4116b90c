//! Ctrl-C, SIGTERM and a closed terminal: the first asks to drain, the second ends at once.

use std::{process::exit, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::console;

/// 128 and the number of SIGINT, as a shell has it.
const INTERRUPTED: i32 = 130;

/// A shell, `timeout` or `make` may tell a process what the terminal has told it already. Nobody
/// changes their mind so soon.
const ECHO: Duration = Duration::from_millis(500);

/// Cancelled by the first signal. `at_once` runs before the second one ends the process.
pub fn shutdown(at_once: impl FnOnce() + Send + 'static) -> Result<CancellationToken> {
    let hangup = (!ignores_hangup()).then(SignalKind::hangup);
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate()]
        .into_iter()
        .chain(hangup)
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
        let heard = Instant::now();
        while heard.elapsed() < ECHO {
            tokio::select! {
                () = next(&mut signals) => {}
                () = sleep_until(heard + ECHO) => {}
            }
        }
        next(&mut signals).await;
        at_once();
        exit(INTERRUPTED);
    });
    Ok(token)
}

/// Under `nohup`: it is to outlive its terminal.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|signals| signals & 1 == 1)
}

async fn next(signals: &mut [Signal]) {
    futures::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
}
