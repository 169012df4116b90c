//! What answers look like: one type per thing, in the words of the API.

mod job;
mod queue;
mod schedule;
mod stats;
mod waiting;
mod worker;

pub use job::{Batch, CreatedBy, Job, JobError, JobState, Progress};
pub use queue::Queue;
pub use schedule::{CatchUp, Fire, FireOutcome, Overlap, Schedule};
pub use stats::Stats;
pub use waiting::{Reason, Waiting};
pub use worker::Worker;

/// As people write it: `1h 30m`, `250ms`.
pub(crate) fn span(duration: std::time::Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    let parts = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let mut rest = ms;
    let mut text = Vec::new();
    for (unit, size) in parts {
        if rest >= size {
            text.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    text.join(" ")
}

/// The way back: `90s`, `1h 30m`, `7d`; a bare `0` too. At most about a thousand years.
pub(crate) fn parse_span(text: &str) -> Option<std::time::Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(std::time::Duration::ZERO);
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
        let size = match &rest[..unit_end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(size)?)?;
        rest = rest[unit_end..].trim_start();
    }
    const MOST: u64 = 366_000 * 86_400_000;
    (!text.is_empty() && total <= MOST).then(|| std::time::Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn spans_are_read_as_they_are_written() {
        for text in ["0s", "250ms", "90s", "1h 30m", "7d", "1d 2h 3m 4s 5ms"] {
            let span_of = parse_span(text).expect(text);
            assert_eq!(parse_span(&span(span_of)), Some(span_of), "{text}");
        }
        assert_eq!(parse_span("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(span(Duration::from_secs(90)), "1m 30s");
        for wrong in
            ["", " ", "5", "s", "-1s", "1.5h", "1y", "1 s", "9999999999999999999s", "999999999d", "1é"]
        {
            assert_eq!(parse_span(wrong), None, "{wrong}");
        }
    }
}
