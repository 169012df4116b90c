//! When a schedule fires: pure functions of its rule and a time.

use std::{collections::VecDeque, time::Duration};

use croner::parser::{CronParser, Seconds, Year};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// A rule as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Minute, hour, day of the month, month, day of the week; day and weekday are alternatives, as
    /// in every cron.
    Cron(String),
    /// Multiples of it since 1970, so that all schedulers agree on the ticks.
    Every(Duration),
}

/// A rule that can be asked.
#[derive(Clone, Debug)]
pub struct Timing {
    rule: Rule,
    zone: TimeZone,
}

#[derive(Clone, Debug)]
enum Rule {
    Cron(Box<croner::Cron>),
    Every(SignedDuration),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    #[error("{text:?} is not a cron expression of five fields: {why}")]
    Cron { text: String, why: String },
    #[error("{0:?} is not a time zone of the IANA database, such as Europe/Berlin or UTC")]
    Zone(String),
    #[error("an interval is at least a second")]
    Interval,
    #[error("it never fires")]
    Never,
}

impl Timing {
    /// Reads a rule. That it never fires is only found by looking for its next time.
    pub fn new(when: &When, zone: &str) -> Result<Self, TimingError> {
        let rule = match when {
            When::Cron(text) => Rule::Cron(Box::new(parse(text)?)),
            When::Every(every) => {
                let every = SignedDuration::try_from(*every).map_err(|_| TimingError::Interval)?;
                if every < SignedDuration::from_secs(1) {
                    return Err(TimingError::Interval);
                }
                Rule::Every(every)
            }
        };
        let zone = TimeZone::get(zone).map_err(|_| TimingError::Zone(zone.to_owned()))?;
        Ok(Self { rule, zone })
    }

    /// The first time after this one; `None`: never again.
    ///
    /// On the day on which clocks go forward, what falls into the gap fires when it ends; on the day
    /// on which they go back, a fixed hour fires once and an interval in both hours.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every(every) => {
                let (after, every) = (after.as_millisecond(), i64::try_from(every.as_millis()).ok()?);
                Timestamp::from_millisecond((after.div_euclid(every) + 1).checked_mul(every)?).ok()
            }
            Rule::Cron(cron) => {
                let next = cron.find_next_occurrence(&after.to_zoned(self.zone.clone()), false).ok()?;
                Some(next.timestamp()).filter(|next| *next > after)
            }
        }
    }

    /// The next `n` times.
    pub fn preview(&self, after: Timestamp, n: usize) -> Result<Vec<Timestamp>, TimingError> {
        let times: Vec<_> = std::iter::successors(self.next(after), |at| self.next(*at)).take(n).collect();
        if times.is_empty() { Err(TimingError::Never) } else { Ok(times) }
    }
}

fn parse(text: &str) -> Result<croner::Cron, TimingError> {
    let wrong = |why: String| TimingError::Cron { text: text.to_owned(), why };
    // The parser lets empty members of a list pass.
    if text.split(|c: char| c == ',' || c.is_whitespace()).any(str::is_empty) {
        return Err(wrong("a field or a member of a list is empty".into()));
    }
    if text.split_whitespace().count() != 5 {
        return Err(wrong("it has not five fields".into()));
    }
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(text)
        .map_err(|error| wrong(error.to_string()))
}

/// What becomes of times at which no scheduler ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    Skip,
    /// The newest of them fires.
    One,
    /// All within the window fire, at most [`MOST_CAUGHT_UP`].
    All,
}

impl CatchUp {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::One => "one",
            Self::All => "all",
        }
    }

    pub(crate) fn from_column(text: &str) -> Self {
        match text {
            "skip" => Self::Skip,
            "all" => Self::All,
            _ => Self::One,
        }
    }
}

/// Fired at once after schedulers were away; the rest count as missed.
pub const MOST_CAUGHT_UP: usize = 100;
/// A tick this late is not missed: another scheduler may have had to take over.
const ON_TIME: SignedDuration = SignedDuration::from_secs(30);
/// Missed ticks are counted so far and no further.
const MOST_COUNTED: u64 = 10_000;

/// What to do about the ticks from the first that is due until now.
#[derive(Debug, PartialEq)]
pub(crate) struct Due {
    /// Oldest first.
    pub fire: Vec<Timestamp>,
    /// The newest of those that do not fire, oldest first.
    pub missed: Vec<Timestamp>,
    pub missed_count: u64,
    pub next: Option<Timestamp>,
}

pub(crate) fn due(
    timing: &Timing,
    catch_up: CatchUp,
    window: Duration,
    first: Timestamp,
    now: Timestamp,
) -> Due {
    let window = SignedDuration::try_from(window).unwrap_or(ON_TIME).max(ON_TIME);
    let opens = now.checked_sub(window).unwrap_or(Timestamp::MIN);

    // Ticks before the window are only counted.
    let mut missed_count = 0;
    let mut tick = Some(first);
    while let Some(at) = tick.filter(|at| *at < opens && missed_count < MOST_COUNTED) {
        missed_count += 1;
        tick = timing.next(at);
    }
    if tick.is_some_and(|at| at < opens) {
        tick = timing.next(opens);
    }

    let mut recent: VecDeque<Timestamp> = VecDeque::new();
    while let Some(at) = tick.filter(|at| *at <= now) {
        if recent.len() == 2 * MOST_CAUGHT_UP {
            recent.pop_front();
            missed_count += 1;
        }
        recent.push_back(at);
        tick = timing.next(at);
    }
    let newest_is_on_time = recent.back().is_some_and(|at| now.duration_since(*at) <= ON_TIME);
    let fires = match catch_up {
        CatchUp::Skip => usize::from(newest_is_on_time),
        CatchUp::One => 1,
        CatchUp::All => MOST_CAUGHT_UP,
    };
    let fire: Vec<_> = recent.split_off(recent.len().saturating_sub(fires)).into();
    missed_count += recent.len() as u64;
    let missed = recent.split_off(recent.len().saturating_sub(MOST_CAUGHT_UP)).into();
    Due { fire, missed, missed_count, next: tick }
}

#[cfg(test)]
#[path = "timing_tests.rs"]
mod tests;
