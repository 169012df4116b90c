//! Which addresses may be reached.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use streamspace_common::config::Networks;
use url::{Host, Url};

/// Public addresses, and those that the operator allows besides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets {
    allowed: Arc<Networks>,
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the address is private")]
pub(crate) struct Private;

impl Targets {
    pub(crate) fn new(allowed: Networks) -> Self {
        Self { allowed: Arc::new(allowed) }
    }

    fn permit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.allowed.contain(address)
    }

    /// What can be told from the URL alone. Names are told where they are resolved; an address that
    /// stands in the URL is never resolved.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Private> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            _ => return Ok(()),
        };
        if self.permit(address) { Ok(()) } else { Err(Private) }
    }
}

/// The connection is made to the very addresses that were checked, so a name that changes its mind
/// in between gains nothing.
impl Resolve for Targets {
    fn resolve(&self, name: Name) -> Resolving {
        let targets = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let permitted: Vec<SocketAddr> =
                found.into_iter().filter(|address| targets.permit(address.ip())).collect();
            if permitted.is_empty() {
                return Err(Box::new(Private) as Box<dyn Error + Send + Sync>);
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is of the internet at large: what the registries of special purposes
/// (RFC 6890) keep for other ends is not.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && b & 0xc0 == 64) // shared by carriers
        || (a == 198 && b & 0xfe == 18) // benchmarks
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99); // 6to4 relays
    !special
}

/// Global unicast, without the ranges in which another address hides.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let hides_another = a == 0x2002 // 6to4
        || (a == 0x2001 && b < 0x200); // Teredo and other protocols' own
    let documentation = (a == 0x2001 && b == 0xdb8) || a == 0x3fff;
    a & 0xe000 == 0x2000 && !hides_another && !documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_of_the_internet_is_private() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "::1",
            "::",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::",
            "2001:0:1::1",
            "2001:db8::1",
        ] {
            let address: IpAddr = private.parse().expect("an address");
            assert!(!Targets::default().permit(address), "{private}");
        }
        for public in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"] {
            let address: IpAddr = public.parse().expect("an address");
            assert!(Targets::default().permit(address), "{public}");
        }
    }

    #[test]
    fn the_operator_may_allow_some() {
        let targets = Targets::new("127.0.0.0/8,fd00::/8".parse().expect("networks"));
        for (url, permitted) in [
            ("http://127.0.0.1:9/", true),
            ("https://[fd00::1]/", true),
            ("https://[::ffff:127.0.0.1]/", true),
            ("https://10.0.0.1/", false),
            ("https://[::1]/", false),
            ("https://2130706434/", true), // 127.0.0.2, as a URL may write it
            ("https://0xa000001/", false),
        ] {
            assert_eq!(targets.check(&url.parse().expect("a URL")).is_ok(), permitted, "{url}");
        }
    }
}
