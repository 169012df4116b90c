//! Questions to the person at the terminal.

use std::{
    fmt::Display,
    io::{self, IsTerminal},
};

use ::console::Term;
use anyhow::{Context, Result};

use super::exit::Usage;

/// Yes or no, where no answer is no. Without a terminal nobody can be asked.
pub fn confirm(question: impl Display) -> Result<bool> {
    let terminal = Term::stderr();
    if !terminal.is_term() || !io::stdin().is_terminal() {
        return Err(Usage::new("there is no terminal to confirm this at", "say so with --yes").into());
    }
    terminal.write_str(&format!("{question} [y/N] ")).context("cannot write to the terminal")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read from the terminal")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
