use streamspace_common::{Classified, ErrorKind};
use streamspace_queue::{EnqueueError, control::ControlError, schedule::ScheduleError};

use crate::identity::{self, Forbidden};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such job")]
    NoJob,
    #[error("there is no such queue")]
    NoQueue,
    #[error("there is no such worker")]
    NoWorker,
    #[error("there is no such schedule")]
    NoSchedule,
    /// A field of the request, as a JSON pointer, and what is wrong with it.
    #[error("{pointer}: {detail}")]
    Invalid { pointer: &'static str, detail: String },
    /// Why it can't be done to this job now.
    #[error(transparent)]
    Control(ControlError),
    #[error(transparent)]
    Schedule(ScheduleError),
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// What a job is about is not whoever asks' to decide.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error("database")]
    Db(#[from] sqlx::Error),
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotFound => Self::NoJob,
            ControlError::Db(error) => Self::Db(error),
            error => Self::Control(error),
        }
    }
}

impl From<ScheduleError> for Error {
    fn from(error: ScheduleError) -> Self {
        match error {
            ScheduleError::NotFound => Self::NoSchedule,
            ScheduleError::Invalid { pointer, detail } => Self::Invalid { pointer, detail },
            ScheduleError::Enqueue(error) => Self::Enqueue(error),
            ScheduleError::Db(error) => Self::Db(error),
            error => Self::Schedule(error),
        }
    }
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoJob | Self::NoQueue | Self::NoWorker | Self::NoSchedule => ErrorKind::NotFound,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Control(error) => error.kind(),
            Self::Schedule(error) => error.kind(),
            Self::Enqueue(error) => error.kind(),
            Self::Forbidden(error) => error.kind(),
            Self::Identity(error) => error.kind(),
            Self::Db(error) => error.kind(),
        }
    }
    fn field(&self) -> Option<(&str, &str)> {
        match self {
            Self::Invalid { pointer, detail } => Some((pointer, detail)),
            _ => None,
        }
    }
}
