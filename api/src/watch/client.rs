//! One client: a short buffer that the watcher fills and the client empties. Whoever does not keep
//! up is ended, never waited for.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, Weak},
};

use tokio::sync::Notify;

use super::{Change, Interest, hub::Hub};

const MOST_MESSAGES: usize = 256;
const MOST_BYTES: usize = 1 << 20;

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It fell too far behind.
    SlowConsumer,
    /// Whoever opened it may not watch any more.
    Revoked,
    /// Nobody can tell whether they still may: the database is away.
    Unconfirmed,
    /// The job is gone.
    Gone,
    /// The process stops.
    Stopping,
}

impl Ended {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SlowConsumer => "slow-consumer",
            Self::Revoked => "revoked",
            Self::Unconfirmed => "unavailable",
            Self::Gone => "gone",
            Self::Stopping => "going-away",
        }
    }
}

#[derive(Default)]
struct Buffer {
    waiting: VecDeque<Arc<Change>>,
    bytes: usize,
    ended: Option<Ended>,
    /// It was waited for once, and took nothing.
    stalled: bool,
}

impl Buffer {
    fn is_crowded(&self) -> bool {
        !self.stalled && (self.waiting.len() > MOST_MESSAGES / 2 || self.bytes > MOST_BYTES / 2)
    }
}

/// The watcher's end.
#[derive(Default)]
pub(super) struct Inbox {
    buffer: Mutex<Buffer>,
    filled: Notify,
}

impl Inbox {
    /// `false`: it is over with this client.
    pub fn push(&self, change: &Arc<Change>, size: usize) -> bool {
        let mut buffer = self.buffer.lock().expect("no panic while it was held");
        if buffer.ended.is_some() {
            return false;
        }
        if buffer.waiting.len() >= MOST_MESSAGES
            || (buffer.bytes + size > MOST_BYTES && !buffer.waiting.is_empty())
        {
            *buffer = Buffer { ended: Some(Ended::SlowConsumer), ..Buffer::default() };
        } else {
            buffer.bytes += size;
            buffer.waiting.push_back(change.clone());
        }
        let goes_on = buffer.ended.is_none();
        drop(buffer);
        self.filled.notify_one();
        goes_on
    }

    pub fn is_crowded(&self) -> bool {
        self.buffer.lock().expect("no panic while it was held").is_crowded()
    }

    pub fn give_up_if_crowded(&self) {
        let mut buffer = self.buffer.lock().expect("no panic while it was held");
        buffer.stalled |= buffer.is_crowded();
    }

    /// What is buffered still arrives, but for whoever may not see it any more.
    pub fn end(&self, why: Ended) {
        let mut buffer = self.buffer.lock().expect("no panic while it was held");
        if matches!(why, Ended::Revoked | Ended::Unconfirmed) {
            buffer.waiting.clear();
        }
        buffer.ended.get_or_insert(why);
        drop(buffer);
        self.filled.notify_one();
    }
}

/// The client's end; leaving the watcher with its drop.
pub struct Client {
    pub(super) id: u64,
    pub(super) inbox: Arc<Inbox>,
    pub(super) interest: Interest,
    pub(super) hub: Weak<Hub>,
}

impl Client {
    /// The next change, in the order of its versions. Safe to drop halfway.
    pub async fn next(&self) -> Result<Arc<Change>, Ended> {
        loop {
            let filled = self.inbox.filled.notified();
            if let Some(next) = self.take() {
                return next;
            }
            filled.await;
        }
    }

    /// When nothing more may be sent, whatever is buffered: for whoever is stuck in sending.
    pub async fn must_end(&self) -> Ended {
        loop {
            let filled = self.inbox.filled.notified();
            let ended = self.inbox.buffer.lock().expect("no panic while it was held").ended;
            if let Some(ended) = ended {
                return ended;
            }
            filled.await;
        }
    }

    fn take(&self) -> Option<Result<Arc<Change>, Ended>> {
        let mut buffer = self.inbox.buffer.lock().expect("no panic while it was held");
        if let Some(change) = buffer.waiting.pop_front() {
            buffer.stalled = false;
            buffer.bytes = buffer.bytes.saturating_sub(size(&self.interest, &change));
            return Some(Ok(change));
        }
        buffer.ended.map(Err)
    }
}

/// What a change weighs in a client's buffer.
pub(super) fn size(interest: &Interest, change: &Change) -> usize {
    match interest {
        Interest::Job(_) => change.job().len(),
        Interest::Jobs { .. } => change.messages().iter().map(|message| message.len()).sum(),
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.leave(self.id);
        }
    }
}
