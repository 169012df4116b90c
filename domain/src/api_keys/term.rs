//! How long a key works: `30d`, `6m`, `1y`. Here `m` is months, by the calendar.

use jiff::{Span, Timestamp, ToSpan, tz::TimeZone};

const LONGEST_YEARS: i64 = 10;

/// When a key ends that is made now.
pub fn end_of(term: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong = || format!("{term:?} is not a number of days, months or years such as 30d, 6m or 1y");
    let unit = term.chars().next_back().ok_or_else(wrong)?;
    let number = &term[..term.len() - unit.len_utf8()];
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    // Whatever has more digits is too long.
    let number: i64 = number.parse().unwrap_or(i64::MAX);
    if number == 0 {
        return Err("a key works for a day at least".to_owned());
    }
    let now = now.to_zoned(TimeZone::UTC);
    let span = match unit {
        'd' => Span::new().try_days(number),
        'm' => Span::new().try_months(number),
        'y' => Span::new().try_years(number),
        _ => return Err(wrong()),
    };
    let too_long = || format!("a key works for {LONGEST_YEARS} years at most; without a term for good");
    let end = span.ok().and_then(|span| now.checked_add(span).ok()).ok_or_else(too_long)?;
    let last = now.checked_add(LONGEST_YEARS.years()).map_err(|_| too_long())?;
    if end > last { Err(too_long()) } else { Ok(end.timestamp()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_months_of_the_calendar() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().expect("a time");
        let end = |term| end_of(term, now).expect(term).to_string();
        assert_eq!(end("30d"), "2026-03-02T12:00:00Z");
        assert_eq!(end("1m"), "2026-02-28T12:00:00Z");
        assert_eq!(end("6m"), "2026-07-31T12:00:00Z");
        assert_eq!(end("1y"), "2027-01-31T12:00:00Z");
        for wrong in
            ["", "d", "6", "0d", "-1d", "1.5y", "6 m", "1h", "6M", "11y", "99999999999999999999d", "1é"]
        {
            assert!(end_of(wrong, now).is_err(), "{wrong:?}");
        }
    }
}
