//! What is logged, and how it looks.

use tracing_subscriber::EnvFilter;

use super::{
    section::section,
    value::{Value, words},
};

words! {
    /// JSON for machines, coloured text for people.
    LogFormat { Json = "json", Text = "text" }
}

/// A level, or levels by module, known to be good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for LogLevel {
    const EXPECTED: &'static str =
        "a level such as `info`, or levels by module such as `info,streamspace_queue=debug`";

    fn parse(text: &str) -> Option<Self> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        // Without `=` any word is a module to the filter, so a misspelt level would log nothing.
        let known = text.split(',').all(|part| part.contains('=') || LEVELS.contains(&part.trim()));
        (known && EnvFilter::try_new(text).is_ok()).then(|| Self(text.to_owned()))
    }

    fn show(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

section! {
    /// What is logged, and how it looks.
    "log" => LogConfig {
        /// `error`, `warn`, `info`, `debug`, `trace` or `off`; or levels by module.
        level: LogLevel = LogLevel("info".to_owned());
        /// `json` for machines or `text` for people.
        format: LogFormat = LogFormat::Text, shown "`json` in production, else `text`";
    }
}
