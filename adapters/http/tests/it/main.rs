#![expect(clippy::unwrap_used, reason = "a test says what is true")]

mod liars;
mod real;
mod support;
