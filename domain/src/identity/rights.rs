//! Who a person is now: asked at the start of every job that acts for one.

use futures::{FutureExt, future::BoxFuture};
use sqlx::PgConnection;
use streamspace_common::{Actor, Creator, TenantId, UserId};
use streamspace_queue::Rights;

use super::store;

/// The people of this database.
#[derive(Clone, Copy, Debug, Default)]
pub struct People;

impl Rights for People {
    fn actor<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        tenant: TenantId,
        user: UserId,
    ) -> BoxFuture<'a, sqlx::Result<Option<Actor>>> {
        async move {
            let rights = store::rights(conn, tenant, user).await?;
            Ok(rights.map(|(role, platform)| Actor {
                tenant,
                by: Creator::User(user),
                user: Some(user),
                role,
                platform,
            }))
        }
        .boxed()
    }
}
