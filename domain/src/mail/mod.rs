//! Mail: what is said to people outside, and the port through which it leaves.

use std::fmt;

use futures::future::BoxFuture;
use streamspace_common::{Classified, ErrorKind, Secret};

/// A mail to one person.
#[derive(Clone, Debug)]
pub struct Message {
    /// An address without a name.
    pub to: String,
    pub subject: String,
    /// Plain text. Links in it let in whoever has them, so nothing but the mailer sees it.
    pub text: Secret<String>,
}

/// Whoever takes mail from us. It is slow: nobody waits for it in a transaction.
pub trait Mailer: fmt::Debug + Send + Sync {
    /// Hands a message over. One whose sending fails may have been taken all the same, so what is
    /// sent again may arrive twice.
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Error>>;
}

/// Why a message was not handed over. None of them quotes it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something is wrong on the way there, or with whoever takes it: later it may work.
    #[error("mail could not be handed over: {0}")]
    Unavailable(String),
    /// It is wrong itself, or unwanted: it will be next time.
    #[error("mail was refused: {0}")]
    Refused(String),
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Refused(_) => ErrorKind::Invalid,
        }
    }
}
