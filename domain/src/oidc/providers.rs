//! Setting providers up.

use serde_json::{Value, json};
use sqlx::PgConnection;
use streamspace_common::{Actor, OidcProviderId, Place, Sealed, Secret, web};
use streamspace_queue::Tx;
use url::Url;

use super::{
    Error, Oidc,
    model::{Provider, Settings, Whose},
    store,
};
use crate::{
    audit::{self, Entry},
    identity::{self, Permission, Require, Tenant},
    teams,
};

/// More than anybody offers people to choose from.
const MOST: i64 = 50;
const LONGEST_SECRET: usize = 2000;

/// Providers, by their names, and whether whoever asked may see all of them and all that is known.
#[derive(Debug)]
pub struct Listed {
    pub providers: Vec<Provider>,
    pub whole: bool,
}

pub(super) fn place(id: OidcProviderId) -> Place {
    Place { table: "oidc_providers", column: "client_secret", row: id.0 }
}

impl Oidc {
    /// Those through which one signs in to a tenant: the one of the slug, or whoever asks is of.
    /// Without either, those that find the tenant themselves.
    pub async fn list(
        &self,
        conn: &mut PgConnection,
        caller: Option<&Actor>,
        slug: Option<&str>,
    ) -> Result<Listed, Error> {
        let tenant = match (slug, caller) {
            (Some(slug), _) => identity::tenant_named(conn, slug).await?.filter(|tenant| tenant.active),
            (None, Some(caller)) => Some(identity::tenant_of(conn, caller.tenant).await?),
            (None, None) => None,
        };
        let whole = caller.is_some_and(|caller| {
            Permission::IdentityProvidersManage.is_held_by(caller)
                && tenant.as_ref().is_some_and(|tenant| tenant.id == caller.tenant)
        });
        let mut providers: Vec<Provider> = self
            .configured()
            .filter(|provider| match (&tenant, slug) {
                (Some(tenant), _) => provider.whose.may_be(tenant),
                (None, Some(_)) => false,
                (None, None) => matches!(provider.whose, Whose::ByClaim { .. }),
            })
            .cloned()
            .collect();
        if let Some(tenant) = &tenant {
            let of_tenant = store::of_tenant(conn, tenant.id).await?;
            // Of one name the configuration's counts.
            let unnamed = |provider: &Provider| {
                self.configured().all(|own| own.settings.name != provider.settings.name)
            };
            providers.extend(of_tenant.into_iter().filter(|provider| whole || unnamed(provider)));
        }
        providers.retain(|provider| whole || provider.settings.enabled);
        providers.sort_by(|a, b| a.settings.name.cmp(&b.settings.name).then(a.id.cmp(&b.id)));
        Ok(Listed { providers, whole })
    }

    /// Sets one up for the own tenant. The secret is kept sealed and never told.
    pub async fn create(
        &self,
        tx: &mut Tx,
        new: Settings,
        secret: &Secret<String>,
    ) -> Result<Provider, Error> {
        tx.require(Permission::IdentityProvidersManage)?;
        self.check(tx, &new).await?;
        let (tenant, id) = (tx.tenant(), OidcProviderId::new());
        let sealed = self.seal(id, secret)?;
        let conn = tx.conn().await?;
        if store::count(conn, tenant).await? >= MOST {
            return Err(Error::TooMany(MOST));
        }
        store::insert(conn, tenant, id, &new, sealed).await?;
        audit::record(
            tx,
            Entry::new("identity_providers.create", "identity_provider", id).after(shown(&new)),
        )
        .await?;
        store::lock(tx.conn().await?, tenant, id).await
    }

    /// Describes one anew. Without a secret the one that is there stays, as long as it is told to the
    /// same provider: whoever may not read it must not have it sent to themselves either.
    pub async fn replace(
        &self,
        tx: &mut Tx,
        id: OidcProviderId,
        new: Settings,
        secret: Option<&Secret<String>>,
    ) -> Result<Provider, Error> {
        tx.require(Permission::IdentityProvidersManage)?;
        let tenant = tx.tenant();
        let before = store::lock(tx.conn().await?, tenant, id).await?;
        identity::may_manage(tx.actor(), before.settings.highest_role())?;
        self.check(tx, &new).await?;
        if secret.is_none() && before.settings.provider_url != new.provider_url {
            let detail = "another provider is told a secret of its own".to_owned();
            return Err(Error::Invalid { pointer: "/clientSecret".to_owned(), detail });
        }
        let sealed = secret.map(|secret| self.seal(id, secret)).transpose()?;
        store::update(tx.conn().await?, tenant, id, &new, sealed).await?;
        let mut after = shown(&new);
        after["rotated"] = secret.is_some().into();
        let changed = Entry::new("identity_providers.update", "identity_provider", id)
            .before(shown(&before.settings))
            .after(after);
        audit::record(tx, changed).await?;
        store::lock(tx.conn().await?, tenant, id).await
    }

    /// Nobody signs in through it any more. Whom it signed in once stays, and so do their sign-ins.
    pub async fn delete(&self, tx: &mut Tx, id: OidcProviderId) -> Result<(), Error> {
        tx.require(Permission::IdentityProvidersManage)?;
        let tenant = tx.tenant();
        let before = store::lock(tx.conn().await?, tenant, id).await?;
        identity::may_manage(tx.actor(), before.settings.highest_role())?;
        store::delete(tx.conn().await?, tenant, id).await?;
        let deleted =
            Entry::new("identity_providers.delete", "identity_provider", id).before(shown(&before.settings));
        Ok(audit::record(tx, deleted).await?)
    }

    async fn check(&self, tx: &mut Tx, new: &Settings) -> Result<(), Error> {
        if let Some((pointer, detail)) = new.faults().into_iter().next() {
            return Err(Error::Invalid { pointer, detail });
        }
        if new.redirect_uri.as_ref().is_some_and(|uri| !self.is_here(uri)) {
            let detail = format!("leads elsewhere than to {}", self.0.public_url);
            return Err(Error::Invalid { pointer: "/redirectUri".to_owned(), detail });
        }
        // Whom one may not make oneself one has no provider make.
        identity::may_manage(tx.actor(), new.highest_role())?;
        if self.configured().any(|own| own.settings.name == new.name) {
            return Err(Error::NameTaken);
        }
        let tenant = tx.tenant();
        if let Some(team) = teams::absent(tx.conn().await?, tenant, &new.teams()).await? {
            let n = new
                .group_mapping
                .iter()
                .position(|mapping| mapping.team_id == Some(team))
                .unwrap_or_default();
            let detail = "there is no such team".to_owned();
            return Err(Error::Invalid { pointer: format!("/groupMapping/{n}/teamId"), detail });
        }
        Ok(())
    }

    /// Whether browsers that go there are with us, or stay on their own machine: whoever begins a sign-in,
    /// sends somebody else there and gets the code comes in as them.
    fn is_here(&self, uri: &str) -> bool {
        let Ok(uri) = Url::parse(uri) else { return false };
        web::is_loopback(&uri)
            || Url::parse(&self.0.public_url).is_ok_and(|ours| ours.origin() == uri.origin())
    }

    fn seal(&self, id: OidcProviderId, secret: &Secret<String>) -> Result<Sealed, Error> {
        if !(1..=LONGEST_SECRET).contains(&secret.expose().len()) {
            let detail = format!("has 1 to {LONGEST_SECRET} bytes");
            return Err(Error::Invalid { pointer: "/clientSecret".to_owned(), detail });
        }
        Ok(self.0.master.seal(place(id), secret.expose().as_bytes()))
    }
}

impl Whose {
    /// Whether it can sign somebody in to this tenant.
    fn may_be(&self, tenant: &Tenant) -> bool {
        match self {
            Self::Tenant(id) => *id == tenant.id,
            Self::Named(slug) => *slug == tenant.slug,
            Self::ByClaim { slugs, .. } => slugs.values().any(|slug| *slug == tenant.slug),
        }
    }
}

fn shown(settings: &Settings) -> Value {
    json!({
        "name": settings.name,
        "displayName": settings.display_name,
        "enabled": settings.enabled,
        "providerUrl": settings.provider_url,
        "clientId": settings.client_id,
        "redirectUri": settings.redirect_uri,
        "scopes": settings.scopes,
        "usernameClaim": settings.username_claim,
        "emailClaim": settings.email_claim,
        "groupsClaim": settings.groups_claim,
        "groupMapping": settings.group_mapping,
        "defaultRole": settings.default_role,
    })
}
