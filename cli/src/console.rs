//! The terminal. Results go to standard output, everything said about them to standard error. A
//! reader that went away (`… | head`) ends the command quietly.

use std::{
    fmt::Display,
    io::{self, ErrorKind, IsTerminal, Write},
};

/// A line of the command's result.
pub fn result(line: impl Display) {
    end_if_closed(writeln!(io::stdout().lock(), "{line}"));
}

/// Text of the command's result that brings its own line ends.
pub fn result_text(text: &str) {
    let mut out = io::stdout().lock();
    end_if_closed(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// A line for the person at the terminal.
pub fn say(line: impl Display) {
    // Nobody is left to be told that nobody listens.
    writeln!(io::stderr().lock(), "{line}").ok();
}

/// Whether a person reads what the command says.
pub fn is_person() -> bool {
    io::stderr().is_terminal()
}

fn end_if_closed(written: io::Result<()>) {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            say(format_args!("error: cannot write the result: {error}"));
            std::process::exit(1)
        }
        Ok(()) => {}
    }
}
