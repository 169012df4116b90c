//! Live events and engine notices, within the process and between processes.
//!
//! Within: a broadcast for live events, a call for each engine. Between: NOTIFY, or for live events
//! Redis when it is configured. Everything here may be lost and nothing depends on it but
//! freshness.

use std::sync::{Arc, Mutex, Weak};

use tokio::sync::broadcast;

use crate::notice::{Event, Notices};

/// Somebody in this process who acts on notices: a worker's engine, the scheduler.
pub trait Hear: Send + Sync {
    fn hear(&self, notices: &Notices);
}

/// What a subscriber to live events receives.
#[derive(Clone, Debug, PartialEq)]
pub enum Live {
    Event(Event),
    /// Something may have been missed: read again what you watch.
    Resync,
}

#[derive(Clone)]
pub(crate) enum Remote {
    Notify,
    #[cfg(feature = "redis")]
    Redis(crate::redis::Publisher),
}

#[derive(Clone)]
pub struct Bus {
    live: broadcast::Sender<Live>,
    engines: Arc<Mutex<Vec<Weak<dyn Hear>>>>,
    remote: Remote,
}

/// A subscriber that falls this far behind is told to read again.
const BACKLOG: usize = 8192;

impl Bus {
    pub(crate) fn new(remote: Remote) -> Self {
        Self { live: broadcast::channel(BACKLOG).0, engines: Arc::default(), remote }
    }

    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Everything that happens from now on. `Lagged` means the same as [`Live::Resync`].
    pub fn subscribe(&self) -> broadcast::Receiver<Live> {
        self.live.subscribe()
    }

    /// Adds somebody who hears what is committed here and elsewhere, as long as they live.
    pub fn join(&self, engine: Weak<dyn Hear>) {
        let mut engines = self.engines.lock().expect("no panic while it was held");
        engines.retain(|engine| engine.strong_count() > 0);
        engines.push(engine);
    }

    /// Tells this process: its engines, and who watches live events.
    pub(crate) fn tell(&self, notices: &Notices) {
        self.tell_engines(notices);
        if self.live.receiver_count() > 0 {
            for event in &notices.events {
                // Nobody listening is no error.
                let _ = self.live.send(Live::Event(event.clone()));
            }
        }
    }

    pub(crate) fn tell_engines(&self, notices: &Notices) {
        let engines: Vec<_> = self
            .engines
            .lock()
            .expect("no panic while it was held")
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for engine in engines {
            engine.hear(notices);
        }
    }

    pub(crate) fn resync(&self) {
        let _ = self.live.send(Live::Resync);
    }
}
