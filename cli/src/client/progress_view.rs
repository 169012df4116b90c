//! How far a job is.

use std::fmt;

use serde::Deserialize;

use super::text::{clean, count};

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    pub percent: Option<f64>,
    pub current: Option<u64>,
    pub total: Option<u64>,
    pub unit: Option<String>,
    pub message: Option<String>,
}

impl Progress {
    /// What was reported, else what the counts say.
    pub fn percent(&self) -> Option<f64> {
        let counted = match (self.current, self.total) {
            (Some(current), Some(total)) if total > 0 => Some(current as f64 / total as f64 * 100.0),
            _ => None,
        };
        self.percent.or(counted).map(|percent| percent.clamp(0.0, 100.0))
    }

    /// `430 of 1,000 files`, `4.2 of 10.0 MiB`.
    pub fn amount(&self) -> Option<String> {
        let current = self.current?;
        let unit = self.unit.as_deref().unwrap_or_default();
        if unit == "bytes" {
            let bytes = |bytes| indicatif::HumanBytes(bytes).to_string();
            return Some(match self.total {
                Some(total) => format!("{} of {}", bytes(current), bytes(total)),
                None => bytes(current),
            });
        }
        let amount = match self.total {
            Some(total) => format!("{} of {} {}", count(current), count(total), clean(unit)),
            None => format!("{} {}", count(current), clean(unit)),
        };
        Some(amount.trim_end().to_owned())
    }

    /// The amount and the message.
    pub fn words(&self) -> String {
        let message = self.message.as_deref().map(|message| clean(message).into_owned());
        self.amount().into_iter().chain(message).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.words();
        match self.percent() {
            Some(percent) if words.is_empty() => write!(f, "{percent:.0}%"),
            Some(percent) => write!(f, "{percent:.0}%, {words}"),
            None => f.write_str(&words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(text: &str) -> Progress {
        serde_json::from_str(text).expect("valid")
    }

    #[test]
    fn whatever_is_known_is_told() {
        let told = |text| progress(text).to_string();
        assert_eq!(told(r#"{"percent": 12.4}"#), "12%");
        assert_eq!(
            told(r#"{"current": 430, "total": 1000, "unit": "files", "message": "copying"}"#),
            "43%, 430 of 1,000 files, copying"
        );
        assert_eq!(told(r#"{"current": 7}"#), "7");
        assert_eq!(
            told(r#"{"current": 1048576, "total": 4194304, "unit": "bytes"}"#),
            "25%, 1.00 MiB of 4.00 MiB"
        );
        assert_eq!(told(r#"{"message": "a\u001bb"}"#), "a b");
        assert_eq!(told(r#"{"current": 5, "total": 0}"#), "5 of 0");
        assert_eq!(told(r#"{"percent": 180, "current": null}"#), "100%");
    }
}
