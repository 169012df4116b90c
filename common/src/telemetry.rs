//! The log and the metrics of a process.

use std::{
    io::{IsTerminal, stderr},
    panic,
    sync::OnceLock,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::error;
use tracing_subscriber::{Layer, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt};

use crate::config::{LogConfig, LogFormat};

/// From a job that starts at once to one that runs for hours.
const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 1800.0, 7200.0];

/// Starts the log, on standard error: standard output belongs to what a command answers. A second
/// call changes nothing.
pub fn start_log(config: &LogConfig) {
    let lines = fmt::layer().with_writer(stderr);
    let lines = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.with_ansi(colours()).boxed(),
    };
    let started = registry().with(lines).with(config.level.targets()).try_init();
    if started.is_ok() {
        log_panics();
    }
}

fn colours() -> bool {
    stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The default hook writes plain text, which what reads a JSON log cannot take.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        error!(panic.location = location, "panic: {message}");
    }));
}

/// What a process has counted. Clones share it.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Of `render`'s text.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what histograms have collected since the last time; to be called every few seconds.
    pub fn fold(&self) {
        self.0.run_upkeep();
    }
}

/// The process's metrics: from the first call on all that `metrics::counter!` and its like count.
pub fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(install).clone()
}

fn install() -> Metrics {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .expect("buckets are not empty")
        .build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        error!("another recorder was installed first; /metrics will stay empty");
    }
    metrics::gauge!("streamspace_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Metrics(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let metrics = metrics();
        metrics::counter!("streamspace_test_total").increment(2);
        metrics::histogram!("streamspace_test_seconds").record(0.003);
        let text = super::metrics().render();
        assert!(text.contains("streamspace_test_total 2"), "{text}");
        assert!(text.contains(r#"streamspace_test_seconds_bucket{le="0.005"} 1"#), "{text}");
        metrics.fold();
    }
}
