//! Networks by address and prefix: `10.0.0.0/8`, `fd00::/8`, or one address alone.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::value::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        let prefix = match prefix {
            // `+8` and the like are numbers to Rust.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => whole,
        };
        (prefix <= whole).then_some(Self { address, prefix })
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).checked_shr(Ipv4Addr::BITS - self.prefix).unwrap_or(0)
                    == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).checked_shr(Ipv6Addr::BITS - self.prefix).unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

/// Some of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// An IPv4 address that came over an IPv6 socket is the IPv4 address.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Network { address, prefix }) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{address}/{prefix}")?;
        }
        Ok(())
    }
}

/// What is no list of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected networks such as 10.0.0.0/8 or fd00::/8, separated by commas")]
pub struct NoNetworks;

impl FromStr for Networks {
    type Err = NoNetworks;

    fn from_str(text: &str) -> Result<Self, NoNetworks> {
        let networks = text.split(',').map(|network| Network::parse(network.trim()));
        networks.collect::<Option<_>>().map(Self).ok_or(NoNetworks)
    }
}

impl Value for Networks {
    const EXPECTED: &'static str = "networks such as `10.0.0.0/8` or `fd00::/8`, separated by commas";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let networks = Networks::parse("10.0.0.0/8, 192.0.2.7,fd00::/8").expect("valid");
        assert_eq!(networks.to_string(), "10.0.0.0/8,192.0.2.7/32,fd00::/8");
        for inside in ["10.255.0.1", "192.0.2.7", "fd12::1", "::ffff:10.1.2.3"] {
            assert!(networks.contain(inside.parse().expect("an address")), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "fe80::1", "::ffff:11.0.0.1", "::"] {
            assert!(!networks.contain(outside.parse().expect("an address")), "{outside}");
        }
        let all = Networks::parse("0.0.0.0/0").expect("valid");
        assert!(all.contain(IpAddr::from([1, 2, 3, 4])) && !all.contain(IpAddr::from([0; 16])));
        for bad in ["", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "a", "10.0.0.1,"]
        {
            assert_eq!(Networks::parse(bad), None, "{bad:?}");
        }
    }
}
