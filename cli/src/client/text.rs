//! Times, spans of time and the server's text, as a person reads them in a terminal.

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use streamspace_common::span;

/// `3m ago`, `in 2h`, `now`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    let distance = now.duration_since(at);
    match (distance.unsigned_abs(), distance.is_negative()) {
        (distance, _) if distance < Duration::from_secs(1) => "now".to_owned(),
        (distance, false) => format!("{} ago", rough(distance)),
        (distance, true) => format!("in {}", rough(distance)),
    }
}

/// `2026-11-21 18:03:07 UTC (3m ago)`.
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", at.strftime("%Y-%m-%d %H:%M:%S UTC"), relative(at, now))
}

/// `350ms`, `4.2s`, `3m 05s`, `2h 10m`, `4d 3h`.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..10 => format!("{:.1}s", span.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// In its largest unit alone.
fn rough(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Without what would move the cursor or colour the screen: a job's message is anybody's text.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// As `clean`, keeping line ends.
pub fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// Reads `30s`, `5m`, `1h 30m`, `2d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    span::parse(text).ok_or_else(|| format!("expected a time such as 30s, 5m or 1h30m, got {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let now: Timestamp = "2026-11-21T18:00:00Z".parse().expect("valid");
        let told = |seconds: i64| relative(now + jiff::SignedDuration::from_secs(seconds), now);
        assert_eq!(told(0), "now");
        assert_eq!(told(-59), "59s ago");
        assert_eq!(told(-3 * 3600 - 5), "3h ago");
        assert_eq!(told(90), "in 1m");
        assert_eq!(told(3 * 86_400), "in 3d");
        assert_eq!(moment(now, now), "2026-11-21 18:00:00 UTC (now)");
    }

    #[test]
    fn spans_keep_two_units() {
        let told = [350, 4_200, 42_000, 185_000, 7_800_000, 356_400_000]
            .map(|millis| span(Duration::from_millis(millis)));
        assert_eq!(told, ["350ms", "4.2s", "42s", "3m 05s", "2h 10m", "4d 3h"]);
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_message_cannot_drive_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\nc"), "a [2Jb c");
        assert_eq!(clean_lines("a\nb\u{7}"), "a\nb ");
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_secs(172_800)));
        assert!(parse_duration("-5s").is_err());
        assert!(parse_duration("15").is_err());
        assert!(parse_duration("soon").is_err());
    }
}
