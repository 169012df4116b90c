//! Spans of time as people write them, everywhere: configuration, API and command line.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// About a thousand years, far within what a database's interval holds.
const MOST: u64 = 366_000 * 86_400_000;

/// `1h 30m`, `250ms`.
pub fn show(span: Duration) -> String {
    let mut rest = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut parts = Vec::new();
    for (unit, size) in UNITS {
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    parts.join(" ")
}

/// The way back: `90s`, `1h 30m`, `1h30m`, `7d`; a bare `0` too. At most about a thousand years.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let end = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*size)?)?;
        rest = next.trim_start();
    }
    (!text.is_empty() && total <= MOST).then(|| Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_they_are_written() {
        for text in ["0s", "250ms", "1m 30s", "1h 30m", "7d", "1d 2h 3m 4s 5ms"] {
            let span = parse(text).expect(text);
            assert_eq!(show(span), text);
        }
        for (text, seconds) in [("1h30m", 5400), ("90s", 90), ("24h", 86_400), (" 5m ", 300), ("0", 0)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text:?}");
        }
        for wrong in [
            "",
            " ",
            "5",
            "s",
            "-1s",
            "1.5h",
            "1y",
            "1 s",
            "9999999999999999999s",
            "999999999d",
            "1é",
            "1h 30",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
