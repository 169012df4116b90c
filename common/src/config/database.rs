//! The database: one URL, or its parts.

use url::Url;

use super::{section::section, value::words};
use crate::secret::Secret;

words! {
    /// As libpq's `sslmode`.
    SslMode {
        Disable = "disable",
        Allow = "allow",
        Prefer = "prefer",
        Require = "require",
        VerifyCa = "verify-ca",
        VerifyFull = "verify-full",
    }
}

section! {
    /// PostgreSQL. With neither a URL nor a part set, `streamspace up` embeds one and the other roles refuse to start.
    "database" => DatabaseConfig {
        /// `postgres://user:password@host/name`; wins over the parts below. It may be a pooler in transaction mode.
        url: Option<Secret<String>> = None;
        /// Past the pooler, for LISTEN, locks and migrations. That of another role than `database.url`'s is the owner's: only `migrate`, `up`'s migrations, backups and restores connect with it.
        direct_url: Option<Secret<String>> = None, shown "as `database.url`";
        /// Host name, address, or the folder of a Unix socket.
        host: Option<String> = None, shown "`localhost` when another part is set", alias "DB_HOST";
        /// Port, also that of a Unix socket's name.
        port: u16 = 5432, alias "DB_PORT";
        /// Role to connect as: the one that may not change the schema, but for `migrate`.
        user: String = "streamspace".to_owned(), alias "DB_USER";
        /// Its password.
        password: Option<Secret<String>> = None, alias "DB_PASSWORD";
        /// The database's name.
        name: String = "streamspace".to_owned(), alias "DB_NAME";
        /// `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`, as libpq reads them.
        sslmode: SslMode = SslMode::Prefer, alias "DB_SSLMODE";
        /// Connections that one process holds at most.
        max_connections: u32 = 20;
    }
}

impl DatabaseConfig {
    /// Whether there is a database to connect to; otherwise `up` embeds one.
    pub fn is_configured(&self) -> bool {
        self.url.is_some() || self.host.is_some()
    }

    /// The URL, or the one that the parts make.
    pub fn url(&self) -> Option<Secret<String>> {
        self.url.clone().or_else(|| self.url_of_parts())
    }

    /// For LISTEN, locks and migrations, which a pooler in transaction mode cannot carry.
    pub fn direct_url(&self) -> Option<Secret<String>> {
        self.direct_url.clone().or_else(|| self.url())
    }

    fn url_of_parts(&self) -> Option<Secret<String>> {
        let host = self.host.as_deref()?;
        let mut url = Url::parse("postgres://localhost").expect("a constant URL");
        // A socket's folder is no URL host; libpq and sqlx read it from the query.
        if host.starts_with('/') {
            url.query_pairs_mut().append_pair("host", host);
        } else {
            url.set_host(Some(host)).ok()?;
        }
        url.query_pairs_mut().append_pair("sslmode", self.sslmode.as_str());
        url.set_port(Some(self.port)).ok()?;
        url.set_username(&self.user).ok()?;
        url.set_password(self.password.as_ref().map(|password| password.expose().as_str())).ok()?;
        url.path_segments_mut().ok()?.clear().push(&self.name);
        Some(Secret::new(url.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(config: &DatabaseConfig) -> String {
        config.url().expect("a URL").expose().clone()
    }

    #[test]
    fn parts_make_a_url() {
        let parts = DatabaseConfig {
            host: Some("db.internal".to_owned()),
            password: Some("p@ss/word".into()),
            ..Default::default()
        };
        assert_eq!(
            url(&parts),
            "postgres://streamspace:p%40ss%2Fword@db.internal:5432/streamspace?sslmode=prefer"
        );
        let socket = DatabaseConfig { host: Some("/run/pg".to_owned()), ..Default::default() };
        assert_eq!(
            url(&socket),
            "postgres://streamspace@localhost:5432/streamspace?host=%2Frun%2Fpg&sslmode=prefer"
        );
    }

    #[test]
    fn the_url_wins_and_stands_in_for_the_direct_one() {
        let config = DatabaseConfig {
            url: Some("postgres://a/b".into()),
            host: Some("elsewhere".to_owned()),
            ..Default::default()
        };
        assert_eq!(url(&config), "postgres://a/b");
        assert_eq!(config.direct_url(), config.url());
        assert_eq!(DatabaseConfig::default().url(), None);
    }
}
