//! What a person reads when a command fails: one line, its causes, and what to do about it.

use std::fmt;

/// An error together with advice. Attach it with `anyhow::Context`, or return it on its own.
#[derive(Debug)]
pub struct Advice {
    message: String,
    hint: String,
}

impl Advice {
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }

    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Advice {}

/// `error: …`, then one `caused by: …` a line unless the line above already says it, then `hint: …`.
pub fn render(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    let mut text = format!("error: {said}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            text.push_str(&format!("\n  caused by: {}", indent(&cause)));
        }
        said = cause;
    }
    if let Some(advice) = error.downcast_ref::<Advice>() {
        text.push_str(&format!("\nhint: {}", indent(&advice.hint)));
    }
    text
}

fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn causes_follow_once_each_and_advice_comes_last() {
        let error = Err::<(), _>(anyhow!("connection refused"))
            .context("connection refused by the server")
            .context(Advice::new("the database cannot be reached", "start it"))
            .expect_err("built as an error");
        assert_eq!(
            render(&error),
            "error: the database cannot be reached\n  caused by: connection refused by the server\nhint: start it"
        );
    }
}
