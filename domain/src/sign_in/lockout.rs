//! What guessing costs. An attempt is counted against the account before the password is looked at, so
//! however many come at once, no more are tried than may be. One that succeeds is given back with all before
//! it. A failure is counted against the address once it is one: an office may sign in all at once. Of those
//! who guess from one address, no more are tried together than wait for a hash at most.
//!
//! A sign-in that names no tenant and fits in one was a guess at those of the same address in others. Such
//! guesses close no more than this way in: whoever names their tenant goes on.
//!
//! A closed account answers as if the password were wrong. Whoever guesses learns nothing from it; whoever
//! owns it can wait, reset the password, or ask an administrator.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use streamspace_common::config::AuthConfig;

/// When failures close an account or an address, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub account: u32,
    pub address: u32,
    pub first: Duration,
}

pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Many people may share an address.
const PER_ADDRESS: u32 = 4;

impl From<&AuthConfig> for Rules {
    fn from(config: &AuthConfig) -> Self {
        Self {
            account: config.lockout_failures,
            address: config.lockout_failures.saturating_mul(PER_ADDRESS),
            first: config.lockout_duration,
        }
    }
}

/// What failures are counted by: whoever has one address of an IPv6 network has them all.
pub(super) fn counted(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            format!("{}/64", Ipv6Addr::from_bits(network))
        }
    }
}

/// The same for sign-ins that name no tenant and succeed in one: they were tried in others too.
pub(super) fn anywhere(address: IpAddr) -> String {
    format!("{} without a tenant", counted(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_address() {
        let counted = |text: &str| counted(text.parse().expect("an address"));
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), counted("2001:db8:1:2:ffff::1"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
        assert_eq!(counted("::ffff:192.0.2.7"), "192.0.2.7");
    }
}
