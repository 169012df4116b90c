//! Tests run side by side, but those that measure latencies want the machine to themselves.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::const_new(());

/// Held for as long as a test uses the machine.
#[derive(Debug)]
pub enum Turn {
    Shared {
        _guard: RwLockReadGuard<'static, ()>,
    },
    /// Held by another laboratory of the same test.
    Anothers,
    Alone {
        _guard: RwLockWriteGuard<'static, ()>,
    },
}

impl Turn {
    pub async fn shared() -> Self {
        Self::Shared { _guard: MACHINE.read().await }
    }

    pub async fn alone() -> Self {
        Self::Alone { _guard: MACHINE.write().await }
    }
}
