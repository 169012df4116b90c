//! Strangers make tenants of their own, where the installation lets them.
//!
//! Hashing a password is work, so whoever may not register is refused before it. An invitation is looked
//! at then, and taken with the tenant's making: of two that come with the same, one finds it used.

mod error;
mod store;

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde_json::json;
use sqlx::PgConnection;
use streamspace_common::{Actor, Config, PLATFORM, Role, Secret, config::Registration as Door};
use streamspace_queue::{Queue, Request, Tx};
use uuid::Uuid;

pub use self::error::Error;
use crate::{
    api_keys::{self, ApiKey, NewApiKey, Owner},
    audit::{self, Entry},
    identity::{self, NewOwner, NewTenant, Permission, Require, Tenant, Tier},
    links,
    opaque::{Form, Hash},
    sign_in::{Client, Method, SignIns, Welcome},
};

/// The way in for tenants, of one process. Clones share it.
#[derive(Clone)]
pub struct Registrations {
    queue: Queue,
    sign_ins: SignIns,
    door: Door,
    tier: Tier,
    /// Of the first key.
    hourly_limit: u32,
    /// Slugs that the configuration's identity providers sign people in to. Whoever took one before its
    /// tenant is made, or after it was deleted, would get that tenant's people.
    reserved: BTreeSet<String>,
}

/// A tenant and its owner, as somebody wants them.
#[derive(Clone, Debug)]
pub struct NewRegistration {
    pub tenant_name: String,
    /// From the name when absent.
    pub slug: Option<String>,
    pub contact_email: String,
    pub email: String,
    pub name: String,
    pub password: Secret<String>,
    pub invitation: Option<Secret<String>>,
}

/// What has come of it.
#[derive(Debug)]
pub struct Registered {
    pub welcome: Welcome,
    /// The tenant's first.
    pub key: ApiKey,
    /// Shown once; the database has its hash.
    pub secret: Secret<String>,
}

impl Registrations {
    pub fn new(queue: Queue, sign_ins: SignIns, config: &Config) -> Self {
        Self {
            queue,
            sign_ins,
            door: config.tenants.registration,
            tier: config.tenants.default_tier.into(),
            hourly_limit: config.limits.api_key_per_hour,
            reserved: config.auth.oidc.slugs().map(str::to_owned).collect(),
        }
    }

    /// Makes a tenant, its owner, who is signed in then, and its first key.
    pub async fn register(
        &self,
        request: Request,
        new: NewRegistration,
        client: &Client,
    ) -> Result<Registered, Error> {
        let invitation = self.admit(&new).await?;
        let local = new.email.split('@').next().unwrap_or_default();
        let password_hash = self.sign_ins.hash("/password", new.password, &[&new.email, local]).await?;
        let mut tx = self.queue.begin(Actor::system(PLATFORM), request);
        let invited = match &invitation {
            Some(hash) => Some(take(&mut tx, hash, &new.email).await?),
            None => None,
        };
        let tenant = NewTenant {
            name: new.tenant_name,
            slug: new.slug,
            contact_email: Some(new.contact_email),
            tier: invited.as_ref().and_then(|invited| invited.tier).unwrap_or(self.tier),
            owner: NewOwner {
                email: new.email,
                name: new.name,
                platform_admin: false,
                password_hash: Some(password_hash),
                email_verified: false,
            },
        };
        let (tenant, owner) = identity::create_tenant(&mut tx, tenant).await?;
        if self.reserved.contains(&tenant.slug) {
            return Err(identity::Error::SlugTaken(tenant.slug).into());
        }
        links::ask_to_verify(&mut tx, &owner).await.map_err(identity::Error::from)?;
        if let Some(invited) = invited {
            record_taken(&mut tx, invited.id, &tenant).await?;
        }
        let key = NewApiKey {
            name: "First key".to_owned(),
            owner: Owner::Tenant(Role::Admin),
            scopes: vec!["*".to_owned()],
            hourly_limit: self.hourly_limit,
            expires_at: None,
        };
        let (key, secret) = api_keys::create_in(&mut tx, tenant.id, key).await?;
        let admitted = self.sign_ins.admit(&mut tx, owner, tenant, Method::Registration, client).await?;
        tx.commit().await?;
        Ok(Registered { welcome: self.sign_ins.welcome(admitted).await?, key, secret })
    }

    /// Who may come in; with the invitation that they bring, if it is good.
    async fn admit(&self, new: &NewRegistration) -> Result<Option<Hash>, Error> {
        let invitation = match (self.door, &new.invitation) {
            (Door::Closed, _) => return Err(Error::Closed),
            (Door::Invite, None) => return Err(Error::NotInvited),
            (Door::Open, None) => return Ok(None),
            (Door::Invite | Door::Open, Some(invitation)) => invitation,
        };
        let hash = Form::INVITATION.hash(invitation.expose()).ok_or(Error::NotInvited)?;
        let mut conn = self.queue.read().await?;
        if !store::is_good(&mut conn, &hash, &new.email).await? {
            return Err(Error::NotInvited);
        }
        Ok(Some(hash))
    }
}

async fn take(tx: &mut Tx, hash: &Hash, email: &str) -> Result<store::Taken, Error> {
    store::take(tx.conn().await?, hash, email).await?.ok_or(Error::NotInvited)
}

async fn record_taken(tx: &mut Tx, invitation: Uuid, tenant: &Tenant) -> sqlx::Result<()> {
    let taken = Entry::new("tenant_invitations.take", "tenant_invitation", invitation)
        .after(json!({ "tenant": tenant.id, "slug": tenant.slug }));
    audit::record(tx, taken).await
}

/// Whom to invite, and to what.
#[derive(Clone, Debug)]
pub struct NewInvitation {
    /// Without it whoever has the secret may come.
    pub email: Option<String>,
    /// That of the configuration when absent.
    pub tier: Option<Tier>,
    pub lasts: Duration,
}

/// How long an invitation lasts unless something else is said.
pub const LASTS: Duration = Duration::from_secs(7 * 24 * 3600);
const LONGEST: Duration = Duration::from_secs(90 * 24 * 3600);

#[derive(Debug)]
pub struct Invitation {
    pub id: Uuid,
    /// Shown once; the database has its hash.
    pub secret: Secret<String>,
    pub expires_at: Timestamp,
}

/// Lets somebody make a tenant, once. For those who operate the installation.
pub async fn invite(tx: &mut Tx, new: NewInvitation) -> Result<Invitation, Error> {
    tx.require(Permission::TenantsManage)?;
    if let Some(email) = &new.email {
        identity::check_email("/email", email)?;
    }
    if new.lasts.is_zero() || new.lasts > LONGEST {
        let message = "an invitation lasts for at most 90d".to_owned();
        return Err(Error::Invalid { field: "/expiresIn", message });
    }
    let (id, secret) = (Uuid::now_v7(), Form::INVITATION.make());
    let hash = Form::INVITATION.hash_made(&secret);
    let expires_at = store::insert(tx.conn().await?, id, &hash, &new).await?;
    let made = Entry::new("tenant_invitations.create", "tenant_invitation", id)
        .after(json!({ "email": new.email, "tier": new.tier, "expiresAt": expires_at }));
    audit::record(tx, made).await?;
    Ok(Invitation { id, secret, expires_at })
}

/// Forgets invitations that are over, so many at most; answers whether there may be more.
pub(crate) async fn prune(conn: &mut PgConnection, most: i64) -> sqlx::Result<bool> {
    Ok(store::prune(conn, most).await? >= most.unsigned_abs())
}
