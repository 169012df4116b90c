//! What is logged, and how it looks.

use std::{fmt, str::FromStr};

use tracing_subscriber::filter::Targets;

use super::{
    section::section,
    value::{Value, plain, words},
};

words! {
    /// JSON for machines, coloured text for people.
    LogFormat { Json = "json", Text = "text" }
}

/// A level, or levels by module, known to be good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// Everything that the product itself says, and of its libraries what matters.
    pub(super) fn detailed() -> Self {
        Self("info,streamspace=debug".to_owned())
    }

    pub fn targets(&self) -> Targets {
        self.0.parse().expect("checked when it was read")
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        // Any other word without `=` would be taken for a module, so a misspelt level would log all of nothing.
        let known = text.split(',').all(|part| part.contains('=') || LEVELS.contains(&part));
        if known && text.parse::<Targets>().is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("expected {}, got {text:?}", Self::EXPECTED))
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

plain! {
    LogLevel: "a level such as `info`, or levels by module such as `info,streamspace_queue=debug`",
}

section! {
    /// What is logged, and how it looks.
    "log" => LogConfig {
        /// `error`, `warn`, `info`, `debug`, `trace` or `off`; or levels by module.
        level: LogLevel = LogLevel("info".to_owned()), shown "`info`; with `server.debug` `info,streamspace=debug`";
        /// `json` for machines or `text` for people.
        format: LogFormat = LogFormat::Text, shown "`json` in production, else `text`";
    }
}
