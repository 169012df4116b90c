//! Why a job waits.

use serde::Deserialize;

use super::{
    json::Json,
    text::{clean, count},
};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Waiting {
    pub reasons: Vec<Reason>,
    pub position: Json,
    /// How many lanes share the queue.
    pub lanes: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reason {
    pub reason: String,
    pub detail: Option<String>,
}

impl Reason {
    fn words(&self) -> String {
        match self.detail.as_deref() {
            Some(detail) => clean(detail).into_owned(),
            None => self.reason.replace('_', " "),
        }
    }
}

impl Waiting {
    /// The first reason, or the place in the queue.
    pub fn summary(&self) -> String {
        match self.reasons.first() {
            Some(reason) => reason.words(),
            None => self.place().unwrap_or_default(),
        }
    }

    pub fn lines(&self) -> String {
        self.reasons.iter().map(Reason::words).chain(self.place()).collect::<Vec<_>>().join("\n")
    }

    fn place(&self) -> Option<String> {
        let place = match &self.position {
            Json::Null => return None,
            position => position.compact(),
        };
        let lanes = match self.lanes {
            Some(lanes) if lanes > 1 => format!("; {} tenants share the queue", count(lanes)),
            _ => String::new(),
        };
        Some(format!("place {place} in its lane{lanes}"))
    }
}
