//! Configuration: one struct per section, read once at start.
//!
//! A section is declared in one place (`section!`) with each key's type, default and meaning; the
//! variable, the reference in `docs/` and `config show` follow from it. Only keys that something
//! reads exist: what nothing reads is refused, so no setting is ever without effect in silence.

mod auth;
mod check;
mod database;
mod jobs;
mod log;
mod mail;
mod networks;
pub mod oidc;
mod origins;
mod problems;
mod reader;
mod reference;
mod section;
mod server;
mod tenants;
#[cfg(test)]
mod tests;
mod value;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

pub use self::{
    auth::AuthConfig,
    database::{DatabaseConfig, SslMode},
    jobs::JobsConfig,
    log::{LogConfig, LogFormat, LogLevel},
    mail::{MailConfig, Sender},
    networks::Networks,
    origins::Origins,
    problems::{Problem, Problems},
    reader::{Origin, Sources},
    reference::Effective,
    section::Key,
    server::{Environment, ServerConfig},
    tenants::{Registration, TenantsConfig, Tier},
    value::ByteSize,
};
use self::{reader::Reader, section::Section, section::section};
use crate::secret::Secret;

section! {
    /// Redis carries what may be lost: live events between replicas, and what they have counted against limits. Without it events go over NOTIFY, and each process counts alone.
    "redis" => RedisConfig {
        /// `redis://:password@host/0`, `rediss://…` or `redis+unix:///path`.
        url: Option<Secret<String>> = None;
    }
}

section! {
    /// Keys of the installation, and whom it may reach.
    "security" => SecurityConfig {
        /// The file (0600) of the master key that encrypts every stored secret; several processes of one installation share it.
        master_key_file: Option<PathBuf> = None, shown "`master.key` in `server.data_dir`, made at first start";
        /// Private addresses that the product may reach when others than the operator name them, such as an identity provider in one's own network: `10.1.0.0/16,127.0.0.1`. Public ones are always allowed.
        allowed_cidrs: Option<Networks> = None;
    }
}

section! {
    /// What a caller may ask for in a time.
    "limits" => LimitsConfig {
        /// Requests an hour of an API key that has no limit of its own.
        api_key_per_hour: u32 = 10_000;
        /// Requests a minute of a person who signed in, over all their sign-ins.
        user_per_minute: u32 = 600;
        /// Requests a minute of an address, or of an IPv6 network `/64`, to operations that are open to everybody; health and documents are not counted. As many may come with keys and sign-ins that are refused.
        address_per_minute: u32 = 60;
    }
}

section! {
    /// Who changed what.
    "audit" => AuditConfig {
        /// How long the audit is kept, in whole months; at least `90d`.
        retention: Duration = Duration::from_secs(400 * 24 * 3600);
    }
}

/// The sections in the order in which they are shown.
macro_rules! config {
    ($($section:ident: $Type:ident),+ $(,)?) => {
        #[derive(Clone, Debug, Default)]
        pub struct Config {
            $(pub $section: $Type,)+
            /// Where each key's value came from.
            pub origins: BTreeMap<&'static str, Origin>,
            /// What the operator should know, said once in the log.
            pub notices: Vec<String>,
        }

        impl Config {
            fn read(reader: &mut Reader<'_>) -> Self {
                Self { $($section: $Type::read(reader),)+ ..Self::default() }
            }

            fn shown(&self) -> Vec<(&'static str, Option<String>)> {
                [$(self.$section.shown()),+].concat()
            }
        }

        fn sections() -> Vec<(&'static str, &'static str, Vec<Key>)> {
            vec![$(reference::described::<$Type>()),+]
        }
    };
}

config! {
    server: ServerConfig,
    database: DatabaseConfig,
    redis: RedisConfig,
    security: SecurityConfig,
    auth: AuthConfig,
    tenants: TenantsConfig,
    limits: LimitsConfig,
    jobs: JobsConfig,
    mail: MailConfig,
    audit: AuditConfig,
    log: LogConfig,
}

/// Variables of the published API that have no effect here, with what to do instead.
const WITHOUT_EFFECT: [(&str, &str); 2] =
    [("KUBECTL_PATH", "no kubectl is executed"), ("GIN_MODE", "use log.level and log.format")];

impl Config {
    /// Reads and checks everything, or tells everything that is wrong.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(sources);
        let mut config = Self::read(&mut reader);
        reader.refuse_unknown(&Self::describe());
        config.origins = std::mem::take(&mut reader.origins);
        config.resolve();
        for (key, message) in config.conflicts() {
            // Of a key whose own value was refused, the default in its place says nothing.
            if reader.problems.0.iter().all(|problem| problem.key != key) {
                reader.problems.add(key, config.origins.get(key).cloned(), message);
            }
        }
        config.notices = WITHOUT_EFFECT
            .iter()
            .filter(|(name, _)| sources.environment.contains_key(*name))
            .map(|(name, instead)| format!("{name} has no effect: {instead}"))
            .collect();
        if reader.problems.0.is_empty() { Ok(config) } else { Err(reader.problems) }
    }

    /// Every key there is.
    pub fn describe() -> Vec<Key> {
        sections().into_iter().flat_map(|(_, _, keys)| keys).collect()
    }

    pub fn master_key_file(&self) -> PathBuf {
        self.security.master_key_file.clone().unwrap_or_else(|| self.server.data_dir.join("master.key"))
    }
}
