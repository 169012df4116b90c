//! Who a job acts as, and whether they may act now.

use futures::future::BoxFuture;
use sqlx::PgConnection;
use streamspace_common::{Actor, ApiKeyId, TenantId, UserId};

/// On whose authority a job acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    Person(UserId),
    /// A key of the tenant itself.
    Key(ApiKeyId),
}

/// Who somebody is now, asked at the start of jobs that act with their rights.
pub trait Rights: Send + Sync {
    fn actor<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        tenant: TenantId,
        behind: Behind,
    ) -> BoxFuture<'a, sqlx::Result<MayAct>>;
}

/// Whether somebody may act now.
pub enum MayAct {
    As(Actor),
    /// No more: they are disabled, revoked or deleted. Their jobs are cancelled.
    No,
    /// Their tenant is suspended, which this worker has not read yet: their jobs wait with its others.
    NotNow,
}
