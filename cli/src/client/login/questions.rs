//! What is asked of the person at the terminal, or found in standard input: there each answer has a line.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal, Read},
};

use ::console::Term;
use anyhow::{Context, Result};
use streamspace_common::Secret;

use crate::client::exit::Usage;

#[derive(Default)]
pub struct Questions {
    /// `None`: a person answers, or nothing was asked yet.
    lines: Option<VecDeque<Secret<String>>>,
}

/// More than any answers have: what is piped in by mistake need not be read whole.
const MOST: u64 = 8192;

impl Questions {
    /// Whether somebody can be asked again.
    pub fn is_person(&self) -> bool {
        io::stdin().is_terminal()
    }

    pub fn line(&mut self, question: &str) -> Result<String> {
        if !self.is_person() {
            return Ok(self.next(question)?.expose().clone());
        }
        ask(question)?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).context("cannot read from the terminal")?;
        Ok(answer)
    }

    /// Not shown while it is typed.
    pub fn secret(&mut self, question: &str) -> Result<Secret<String>> {
        if !self.is_person() {
            return self.next(question);
        }
        let terminal = ask(question)?;
        Ok(Secret::new(terminal.read_secure_line().context("cannot read from the terminal")?))
    }

    fn next(&mut self, question: &str) -> Result<Secret<String>> {
        let lines = match &mut self.lines {
            Some(lines) => lines,
            empty => empty.insert(read_lines()?),
        };
        lines.pop_front().ok_or_else(|| {
            let hint = "each answer has a line of its own, or is asked for at a terminal";
            Usage::new(format!("the input ends before this is answered: {question}"), hint).into()
        })
    }
}

fn ask(question: &str) -> Result<Term> {
    let terminal = Term::stderr();
    terminal.write_str(&format!("{question}: ")).context("cannot write to the terminal")?;
    Ok(terminal)
}

fn read_lines() -> Result<VecDeque<Secret<String>>> {
    let mut text = String::new();
    io::stdin().take(MOST).read_to_string(&mut text).context("cannot read standard input")?;
    let text = Secret::new(text);
    Ok(text.expose().lines().map(Secret::from).collect())
}
