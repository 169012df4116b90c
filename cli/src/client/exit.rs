//! What the exit code of a client command says, so that scripts need not read its text.

use std::{fmt, process::ExitCode};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Succeeded,
    /// It was waited for a job that was cancelled.
    JobCancelled,
    /// It was waited for a job that failed.
    JobFailed,
    TimedOut,
    Interrupted,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::JobFailed => 3,
            Self::JobCancelled => 4,
            Self::TimedOut => 5,
            // As a shell has it: 128 and the number of SIGINT.
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The command was called with what it cannot use; as for flags that do not exist.
pub const USAGE: u8 = 2;

/// Shown by `--help` of every command that can wait.
pub const HELP: &str = "\
Exit codes:
  0    done; with --wait or watch: every job succeeded (after `cancel`: it has ended)
  1    the server could not be reached, or refused; of several jobs, at least one
  2    wrong use of the command
  3    a job failed
  4    a job was cancelled
  5    --timeout passed first; the job goes on
  130  Ctrl-C while watching; the job goes on";

/// Wrong use of a command that its arguments' syntax could not show.
#[derive(Debug)]
pub struct Usage {
    message: String,
    pub hint: String,
}

impl Usage {
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Usage {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_a_code_of_its_own_that_the_help_names() {
        let all = [Exit::Succeeded, Exit::JobCancelled, Exit::JobFailed, Exit::TimedOut, Exit::Interrupted];
        let mut codes: Vec<u8> = all.into_iter().map(Exit::code).chain([1, USAGE]).collect();
        codes.sort_unstable();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 130]);
        for code in codes {
            assert!(HELP.contains(&format!("\n  {code} ")), "{code} is not in the help");
        }
    }
}
