//! Ids are UUIDv7: they sort by the time of their making, so lists page by id.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            #[expect(clippy::new_without_default, reason = "two calls give two values")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    )+};
}

ids! {
    /// An organisation; every row belongs to exactly one.
    TenantId,
    UserId,
    ApiKeyId,
    JobId,
    ScheduleId,
    TeamId,
    SignInId,
    OidcProviderId,
    /// Who somebody is to an issuer.
    OidcIdentityId,
    /// One start of one process. Never a host name: a restarted worker is another worker.
    BootId,
}

/// The built-in tenant that owns what the installation shares. Nobody can sign in to it.
pub const PLATFORM: TenantId = TenantId(Uuid::from_u128(1));
