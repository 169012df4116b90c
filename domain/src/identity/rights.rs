//! Who somebody is now: asked at the start of every job that acts with their rights.

use futures::{FutureExt, future::BoxFuture};
use sqlx::PgConnection;
use streamspace_common::{Actor, Creator, TenantId};
use streamspace_queue::{Behind, Rights};

use super::store;
use crate::api_keys;

/// The people and keys of this database.
#[derive(Clone, Copy, Debug, Default)]
pub struct People;

impl Rights for People {
    fn actor<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        tenant: TenantId,
        behind: Behind,
    ) -> BoxFuture<'a, sqlx::Result<Option<Actor>>> {
        async move {
            match behind {
                Behind::Person(user) => {
                    let rights = store::rights(conn, tenant, user).await?;
                    Ok(rights.map(|(role, platform)| Actor {
                        tenant,
                        by: Creator::User(user),
                        user: Some(user),
                        key: None,
                        role,
                        platform,
                    }))
                }
                Behind::Key(key) => api_keys::actor(conn, tenant, key).await,
            }
        }
        .boxed()
    }
}
