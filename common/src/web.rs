//! URLs that others give us.

use std::net::IpAddr;

use url::{Host, Url};

/// Whether what is sent there stays between us and them: `https`, or this very machine. Nothing else
/// that a URL can carry, neither credentials nor a fragment.
pub fn is_confidential(url: &Url) -> bool {
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    bare && url.has_host() && (url.scheme() == "https" || url.scheme() == "http" && is_loopback(url))
}

/// Whether it is on the machine of whoever goes there.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_listens_in() {
        let confidential = |url: &str| is_confidential(&url.parse().expect("a URL"));
        for good in
            ["https://id.example:8443/a?b=c", "http://localhost:8080", "http://127.0.0.2", "http://[::1]:9"]
        {
            assert!(confidential(good), "{good}");
        }
        for bad in [
            "http://id.example",
            "http://localhost.evil.example",
            "https://user@id.example",
            "https://:secret@id.example",
            "https://id.example#x",
            "ftp://localhost",
            "data:,x",
        ] {
            assert!(!confidential(bad), "{bad}");
        }
    }
}
