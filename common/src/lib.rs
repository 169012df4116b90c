//! The vocabulary that every other crate speaks: ids, who acts, kinds of errors, pages, secrets,
//! signed tokens, spans of time, configuration, telemetry. No SQL, no HTTP, no nouns of the domain.

pub mod actor;
pub mod config;
pub mod error;
pub mod ids;
pub mod jws;
pub mod sealed;
pub mod secret;
pub mod span;
pub mod telemetry;
pub mod web;

pub use actor::{Actor, Creator, Role};
pub use config::Config;
pub use error::{Classified, ErrorKind};
pub use ids::{
    ApiKeyId, BootId, JobId, OidcIdentityId, OidcProviderId, PLATFORM, ScheduleId, SignInId, TeamId,
    TenantId, UserId,
};
pub use sealed::{MasterKeys, Place, Sealed};
pub use secret::Secret;
