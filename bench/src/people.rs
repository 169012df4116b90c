//! People with keys, for whoever asks the API.

use anyhow::Result;
use streamspace_common::{Actor, Config, PLATFORM, Role, UserId};
use streamspace_domain::api_keys::{self, NewApiKey, Owner};
use streamspace_domain::sign_in::Passwords;
use streamspace_queue::{Listen, Request};

use crate::stage::{Stage, tenant};

/// Makes operators of the first tenant, who see all of its jobs, and answers with a key of each.
pub async fn operators(stage: &Stage, people: usize) -> Result<Vec<String>> {
    let queue = stage.queue("bench people", Listen::default())?;
    let mut tx = queue.begin(Actor::system(PLATFORM), Request::default());
    sqlx::query("insert into tenants (id, name, slug) values ($1, 'Bench', 'bench') on conflict do nothing")
        .bind(tenant(0).0)
        .execute(tx.conn().await?)
        .await?;
    let mut keys = Vec::new();
    for n in 0..people {
        let id = UserId::new();
        sqlx::query(
            "insert into users (id, tenant_id, email, username, name, role) values ($1, $2, $3, $4, $4, $5)",
        )
        .bind(id.0)
        .bind(tenant(0).0)
        .bind(format!("{n}@example.org"))
        .bind(format!("person-{n}"))
        .bind(Role::Operator.as_str())
        .execute(tx.conn().await?)
        .await?;
        let new = NewApiKey {
            name: "bench".to_owned(),
            owner: Owner::User(id),
            scopes: vec!["*".to_owned()],
            hourly_limit: i32::MAX.unsigned_abs(),
            expires_at: None,
        };
        let (_, secret) = api_keys::create_in(&mut tx, tenant(0), new).await?;
        keys.push(secret.expose().clone());
    }
    tx.commit().await?;
    queue.close().await;
    Ok(keys)
}

/// What everybody of [`passwords`] signs in with.
pub const PASSWORD: &str = "correct horse battery staple";

/// Gives everybody a password.
pub async fn passwords(stage: &Stage) -> Result<()> {
    let hash = Passwords::new(&Config::default().auth).hash(PASSWORD.into()).await?;
    sqlx::query("update users set password_hash = $1")
        .bind(hash)
        .execute(&mut stage.connect().await?)
        .await?;
    Ok(())
}
