use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use streamspace_common::{Classified, ErrorKind, UserId};
use uuid::Uuid;

use crate::identity::Forbidden;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Forbidden(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }
}

/// One change, as it is read.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: Uuid,
    pub at: Timestamp,
    pub user: Option<UserId>,
    pub actor_type: String,
    pub actor_id: Option<Uuid>,
    pub action: String,
    pub resource_type: String,
    pub resource_id: Option<String>,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub ip: Option<String>,
    pub request_id: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub user: Option<UserId>,
    pub action: Option<String>,
    pub resource_type: Option<String>,
    pub resource_id: Option<String>,
    pub ip: Option<String>,
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub to: Option<Timestamp>,
    /// A text anywhere in the record, whatever its case.
    pub q: Option<String>,
}

impl Filter {
    /// Whether it looks at anything but times, which the order by id knows how to skip.
    pub(super) fn is_empty(&self) -> bool {
        let Self { user, action, resource_type, resource_id, ip, from: _, to: _, q } = self;
        let texts = [action, resource_type, resource_id, ip, q];
        user.is_none() && texts.into_iter().all(Option::is_none)
    }

    /// Ids are made in the order of time, by clocks that a day is left for.
    pub(super) fn first_id(&self) -> Uuid {
        let first = self.from.and_then(|from| from.checked_sub(24.hours()).ok());
        let ms = first.map_or(0, |first| u128::try_from(first.as_millisecond()).unwrap_or(0));
        Uuid::from_u128(ms << 80)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Page {
    pub records: Vec<Record>,
    /// Where the next page begins. A page may be short, even empty, and have one.
    pub next: Option<Uuid>,
}
