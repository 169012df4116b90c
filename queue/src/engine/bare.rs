//! An engine without a database or without loops, for tests of its parts.

use futures::{FutureExt, future::BoxFuture};
use sqlx::PgConnection;
use streamspace_common::TenantId;

use super::{Behind, Engine, MayAct, Rights, WorkerOptions};
use crate::{Db, DbOptions, Listen, Queue, QueueOptions, Registry, Release};

struct Nobody;

impl Rights for Nobody {
    fn actor<'a>(
        &'a self,
        _: &'a mut PgConnection,
        _: TenantId,
        _: Behind,
    ) -> BoxFuture<'a, sqlx::Result<MayAct>> {
        async { Ok(MayAct::No) }.boxed()
    }
}

impl Engine {
    pub(super) fn bare(options: WorkerOptions) -> Self {
        Self::bare_on("postgres://nowhere.invalid/none", options)
    }

    pub(super) fn bare_on(url: &str, options: WorkerOptions) -> Self {
        let db = Db::new(&DbOptions {
            url: url.into(),
            direct_url: None,
            max_connections: 8,
            application: "test".into(),
        })
        .expect("a database URL");
        let deaf = QueueOptions { release: Release(1), listen: Listen::default(), redis_url: None };
        let queue = Queue::start(db, deaf).expect("a queue");
        let handlers = tokio::runtime::Handle::current();
        Self::new(queue, Registry::new(), std::sync::Arc::new(Nobody), options, handlers).0
    }
}
