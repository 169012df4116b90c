//! What no single key can tell: defaults that follow from other keys, and combinations that are refused.

use std::time::Duration;

use url::Url;

use super::{Config, Environment, LogFormat, LogLevel, Origin};
use crate::secret::Secret;

/// Shorter ones are guessed in a day by whoever reaches the port.
const SHORTEST_SECRET: usize = 8;
/// The database refuses to drop what is younger.
const SHORTEST_AUDIT: Duration = Duration::from_secs(90 * 24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const WELL_KNOWN: [&str; 6] =
    ["password", "postgres", "streamspace", "administrator", "12345678", "00000000"];
const EXAMPLES: [&str; 3] = ["changeme", "change-me", "change_me"];

impl Config {
    /// Fills in the defaults that depend on other keys.
    pub(super) fn resolve(&mut self) {
        let parts = ["port", "user", "password", "name", "sslmode"];
        let part_is_set = parts.iter().any(|part| !self.is_default(&format!("database.{part}")));
        if part_is_set && self.database.host.is_none() {
            self.database.host = Some("localhost".to_owned());
        }
        let embedded = !self.database.is_configured();
        if self.is_default("server.environment") && !embedded {
            self.server.environment = Environment::Production;
        }
        if self.is_default("server.host") && !embedded {
            self.server.host = std::net::Ipv4Addr::UNSPECIFIED.into();
        }
        if self.is_default("log.format") && self.is_production() {
            self.log.format = LogFormat::Json;
        }
        if self.is_default("log.level") && self.server.debug {
            self.log.level = LogLevel::detailed();
        }
        if self.is_default("jobs.heartbeat") {
            self.jobs.heartbeat = self.jobs.heartbeat.min(self.jobs.lease / 3);
        }
    }

    /// Keys with what is wrong with them.
    pub(super) fn conflicts(&self) -> Vec<(&'static str, String)> {
        let mut found = self.job_conflicts();
        found.extend(self.mail.conflicts());
        let mut refuse = |key, message: &str| found.push((key, message.to_owned()));
        for (key, url) in
            [("database.url", &self.database.url), ("database.direct_url", &self.database.direct_url)]
        {
            if !is_url(url.as_ref(), &["postgres", "postgresql"]) {
                refuse(key, "expected postgres://user:password@host/name");
            }
        }
        if self.database.direct_url.is_some() && !self.database.is_configured() {
            refuse("database.direct_url", "is the way past database.url, which is not set");
        }
        if self.database.is_configured() && self.database.url().is_none() {
            refuse("database.host", "expected a host name, an address or the folder of a socket");
        }
        if self.database.max_connections < 2 {
            refuse("database.max_connections", "expected at least 2");
        }
        if !is_url(self.redis.url.as_ref(), &["redis", "rediss", "redis+unix"]) {
            refuse("redis.url", "expected redis://host, rediss://host or redis+unix:///path");
        }
        if self.server.public_url.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https")) {
            refuse("server.public_url", "expected http://… or https://…");
        }
        for (key, limit) in [
            ("limits.api_key_per_hour", self.limits.api_key_per_hour),
            ("limits.user_per_minute", self.limits.user_per_minute),
            ("limits.address_per_minute", self.limits.address_per_minute),
        ] {
            if limit == 0 {
                refuse(key, "expected at least 1");
            }
        }
        self.auth_conflicts(&mut refuse);
        if self.audit.retention < SHORTEST_AUDIT {
            refuse("audit.retention", "expected at least 90d");
        }
        if self.is_production() {
            if self.server.debug {
                refuse("server.debug", "logs details of requests and is refused in production");
            }
            for (key, weakness) in self.weak_secrets() {
                refuse(key, &format!("{weakness}; refused in production"));
            }
        }
        found
    }

    fn auth_conflicts(&self, refuse: &mut impl FnMut(&'static str, &str)) {
        let auth = &self.auth;
        if !(MINUTE..=HOUR * 12).contains(&auth.access_token_ttl) {
            refuse(
                "auth.access_token_ttl",
                "expected between 1m and 12h: others who verify it take it for good so long",
            );
        }
        if !(HOUR..=DAY * 400).contains(&auth.refresh_token_ttl) {
            refuse("auth.refresh_token_ttl", "expected between 1h and 400d");
        }
        if !(3..=1000).contains(&auth.lockout_failures) {
            refuse("auth.lockout_failures", "expected between 3 and 1000");
        }
        if !(Duration::from_secs(1)..=DAY).contains(&auth.lockout_duration) {
            refuse("auth.lockout_duration", "expected between 1s and 24h");
        }
        if !(1..=100).contains(&auth.argon2_iterations) {
            refuse("auth.argon2_iterations", "expected between 1 and 100");
        }
        if !(1..=16).contains(&auth.argon2_parallelism) {
            refuse("auth.argon2_parallelism", "expected between 1 and 16");
        }
        if !(8 * auth.argon2_parallelism.max(1)..=4 << 20).contains(&auth.argon2_memory_kib) {
            refuse("auth.argon2_memory_kib", "expected at least 8 for each lane, and at most 4 GiB");
        }
        // What an attacker has to pay for each guess: the least that OWASP advises.
        if self.is_production()
            && u64::from(auth.argon2_memory_kib) * u64::from(auth.argon2_iterations) < 7168 * 5
        {
            refuse(
                "auth.argon2_memory_kib",
                "with so few iterations hashes are cheap to guess; refused in production",
            );
        }
    }

    fn job_conflicts(&self) -> Vec<(&'static str, String)> {
        let jobs = &self.jobs;
        let mut found = Vec::new();
        let mut refuse = |key, message: &str| found.push((key, message.to_owned()));
        if jobs.lease < Duration::from_secs(3) {
            refuse("jobs.lease", "expected at least 3s: a pause of the network would lose every job");
        }
        if jobs.heartbeat.is_zero() || jobs.heartbeat * 2 >= jobs.lease {
            refuse(
                "jobs.heartbeat",
                "expected more than 0s and less than half of jobs.lease: one lost heartbeat must not lose the lease",
            );
        }
        if !(1..=10_000).contains(&jobs.concurrency) {
            refuse("jobs.concurrency", "expected 1 to 10000");
        }
        if !(jobs.fair_share > 0.0 && jobs.fair_share <= 1.0) {
            refuse("jobs.fair_share", "expected more than 0 and at most 1");
        }
        found
    }

    /// Secrets that anyone could guess, with what is wrong with each.
    pub fn weak_secrets(&self) -> Vec<(&'static str, &'static str)> {
        let in_url = |url: &Option<Secret<String>>| {
            let url = Url::parse(url.as_ref()?.expose()).ok()?;
            url.password().map(Secret::from)
        };
        let ours = [
            ("database.url", in_url(&self.database.url)),
            ("database.direct_url", in_url(&self.database.direct_url)),
            ("database.password", self.database.password.clone()),
            ("redis.url", in_url(&self.redis.url)),
            ("mail.password", self.mail.password.clone()),
        ];
        let of_providers =
            self.auth.oidc.0.iter().map(|provider| ("auth.oidc", Some(provider.client_secret.clone())));
        ours.into_iter()
            .chain(of_providers)
            .filter_map(|(key, secret)| Some((key, weakness(secret?.expose())?)))
            .collect()
    }

    pub fn is_production(&self) -> bool {
        self.server.environment == Environment::Production
    }

    fn is_default(&self, key: &str) -> bool {
        self.origins.get(key).is_none_or(|origin| *origin == Origin::Default)
    }
}

fn weakness(secret: &str) -> Option<&'static str> {
    let lower = secret.to_lowercase();
    if EXAMPLES.iter().any(|example| lower.contains(example)) {
        Some("the secret is an example's")
    } else if lower.len() < SHORTEST_SECRET {
        Some("the secret is shorter than 8 characters")
    } else if WELL_KNOWN.contains(&lower.as_str()) {
        Some("the secret is a well-known one")
    } else {
        None
    }
}

fn is_url(url: Option<&Secret<String>>, schemes: &[&str]) -> bool {
    url.is_none_or(|url| Url::parse(url.expose()).is_ok_and(|url| schemes.contains(&url.scheme())))
}
