//! What is logged, and how it looks.

use tracing_subscriber::filter::Targets;

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
    pub fn targets(&self) -> Targets {
        self.0.parse().expect("checked when it was read")
    }
}

impl Value for LogLevel {
    const EXPECTED: &'static str =
        "a level such as `info`, or levels by module such as `info,streamspace_queue=debug`";

    fn parse(text: &str) -> Option<Self> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        // Any other word without `=` would be taken for a module, so a misspelt level would log all of nothing.
        let known = text.split(',').all(|part| part.contains('=') || LEVELS.contains(&part));
        (known && text.parse::<Targets>().is_ok()).then(|| Self(text.to_owned()))
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
