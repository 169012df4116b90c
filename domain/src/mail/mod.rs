//! Mail: what is said to people outside, and the port through which it leaves.

use std::{fmt, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
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

/// What the bodies of jobs mail with.
#[derive(Clone, Debug)]
pub struct Mail {
    pub mailer: Arc<dyn Mailer>,
    /// Where links lead: the address of the web UI, without a slash at its end.
    pub public_url: String,
}

impl Default for Mail {
    /// Of a process that enqueues jobs and runs none.
    fn default() -> Self {
        Self { mailer: Arc::new(Nobody), public_url: String::new() }
    }
}

#[derive(Debug)]
struct Nobody;

impl Mailer for Nobody {
    fn send<'a>(&'a self, _: &'a Message) -> BoxFuture<'a, Result<(), Error>> {
        async { Err(Error::Unavailable("this process sends no mail".to_owned())) }.boxed()
    }
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
