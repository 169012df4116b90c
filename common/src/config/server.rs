//! Where the processes listen and what the installation is for.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use url::Url;

use super::{
    networks::Networks,
    origins::Origins,
    section::section,
    value::{ByteSize, home, words},
};

words! {
    /// What the installation is for. Production refuses weak secrets and debugging aids.
    Environment { Development = "development", Test = "test", Production = "production" }
}

section! {
    /// Where the processes listen and what the installation is for.
    "server" => ServerConfig {
        /// What the installation is for: `development`, `test` or `production`, which refuses weak secrets and debugging aids.
        environment: Environment = Environment::Development, shown "`development` with the embedded database, else `production`";
        /// Address of the public port.
        host: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST), shown "`127.0.0.1` with the embedded database, else `0.0.0.0`";
        /// Public port; 0 takes a free one.
        port: u16 = 8080, alias "PORT";
        /// The URL under which people and clients reach the public port.
        public_url: Option<Url> = None, shown "from host and port";
        /// What the installation keeps on disk: the embedded database, generated keys.
        data_dir: PathBuf = home().join(".local/share/streamspace"), shown "`~/.local/share/streamspace`; for root `/var/lib/streamspace`";
        /// Address of the admin listener (health and metrics) that every role has.
        admin_host: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
        /// Port of the admin listener; 0 takes a free one.
        admin_port: u16 = 9464;
        /// Proxies in front of the public port, by network: `10.0.0.0/8,192.0.2.7`. A request that comes through them alone is the address's that the nearest of them that is not ours names in `X-Forwarded-For`; from everyone else that header is not believed.
        trusted_proxies: Option<Networks> = None;
        /// Origins of other web pages that may use the API from a browser: `https://app.example.com,http://localhost:3000`; they may send the browser's credentials. `*` alone lets every page in, without them.
        cors_origins: Option<Origins> = None;
        /// Largest body that a request may have.
        body_limit: ByteSize = ByteSize::mib(1);
        /// Logs in detail what the product itself does, unless `log.level` is set. Refused in production: details are about people.
        debug: bool = false;
    }
}

impl ServerConfig {
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    pub fn admin_address(&self) -> SocketAddr {
        SocketAddr::new(self.admin_host, self.admin_port)
    }

    /// Whether those who come over the public URL come by TLS, here or as far as a proxy of ours.
    pub fn is_over_tls(&self) -> bool {
        self.public_url.as_ref().is_some_and(|url| url.scheme() == "https")
    }

    /// Without a slash at its end.
    pub fn public_url(&self) -> String {
        match &self.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None if self.host.is_unspecified() => format!("http://localhost:{}", self.port),
            None => format!("http://{}", self.address()),
        }
    }
}
