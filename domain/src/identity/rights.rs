//! Who somebody is now: asked at the start of every job that acts with their rights.

use futures::{FutureExt, future::BoxFuture};
use sqlx::PgConnection;
use streamspace_common::{Actor, Creator, TenantId};
use streamspace_queue::{Behind, MayAct, Rights};

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
    ) -> BoxFuture<'a, sqlx::Result<MayAct>> {
        async move {
            let found = match behind {
                Behind::Person(user) => {
                    let rights = store::rights(conn, tenant, user).await?;
                    rights.map(|rights| {
                        let (role, platform) = (rights.role, rights.platform_admin);
                        let by = Creator::User(user);
                        (
                            Actor { tenant, by, user: Some(user), key: None, role, platform },
                            rights.tenant_active,
                        )
                    })
                }
                Behind::Key(key) => api_keys::actor(conn, tenant, key).await?,
            };
            Ok(match found {
                Some((actor, true)) => MayAct::As(actor),
                Some((_, false)) => MayAct::NotNow,
                None => MayAct::No,
            })
        }
        .boxed()
    }
}
