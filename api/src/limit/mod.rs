//! How much anybody may ask for in a time: a key in an hour, a person with all their sign-ins in a
//! minute, an address that is nobody's yet in a minute, and one that comes with what is refused.
//!
//! Each process counts for itself and decides at once. With Redis the processes tell each other what
//! they have counted (`share`), a tenth of a second late: together they let through the limit, and
//! what the others let through in that time.

mod share;
mod standing;
mod windows;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use streamspace_common::{ApiKeyId, UserId, config::LimitsConfig};

pub(crate) use self::standing::{LIMIT, POLICY};
use self::windows::{Untold, Windows};
pub use self::{share::share, standing::Standing};

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    Key {
        id: ApiKeyId,
        hourly: u32,
    },
    /// Somebody who signed in.
    User(UserId),
    /// Whoever that is.
    Address(IpAddr),
    /// Whoever comes from there with credentials that are none. Apart, so that a program with an old key
    /// closes nobody's way to sign in.
    Refused(IpAddr),
}

/// The kinds of subjects, in the order in which the other processes are told of them: strangers have
/// any number of addresses, and nobody has any number of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Key,
    User,
    Address,
    Refused,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Key, Self::User, Self::Address, Self::Refused];

    fn period(self) -> Duration {
        match self {
            Self::Key => Duration::from_secs(3600),
            Self::User | Self::Address | Self::Refused => Duration::from_secs(60),
        }
    }

    /// As headers name the policy.
    fn period_name(self) -> &'static str {
        match self {
            Self::Key => "hour",
            Self::User | Self::Address | Self::Refused => "minute",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::User => "user",
            Self::Address => "address",
            Self::Refused => "refused",
        }
    }
}

/// How many subjects of a kind one process remembers: 4 MB. See [`Windows`] for what happens then.
const MOST: usize = 50_000;

/// What was asked for, and how much is too much.
#[derive(Debug)]
pub struct Limits {
    user: u32,
    address: u32,
    windows: [Windows; Kind::ALL.len()],
}

impl Limits {
    pub fn new(config: &LimitsConfig) -> Self {
        Self {
            user: config.user_per_minute,
            address: config.address_per_minute,
            windows: Kind::ALL.map(|kind| Windows::new(kind.period(), MOST)),
        }
    }

    /// Counts a request, if there is room for it.
    pub fn take(&self, subject: Subject) -> Standing {
        self.take_at(subject, Instant::now())
    }

    fn take_at(&self, subject: Subject, now: Instant) -> Standing {
        let (kind, id, limit) = match subject {
            Subject::Key { id, hourly } => (Kind::Key, id.0.as_u128(), hourly),
            Subject::User(id) => (Kind::User, id.0.as_u128(), self.user),
            Subject::Address(address) => (Kind::Address, network(address), self.address),
            Subject::Refused(address) => (Kind::Refused, network(address), self.address),
        };
        let taken = self.of(kind).take(id, limit, now);
        Standing {
            kind,
            limit,
            remaining: limit.saturating_sub(taken.used),
            resets_in: taken.resets_in,
            allowed: taken.allowed,
        }
    }

    /// Forgets what is over; to be called now and then.
    pub fn forget(&self) {
        self.windows.iter().for_each(|windows| windows.forget(Instant::now()));
    }

    fn untold(&self, most: usize) -> Vec<(Kind, Untold)> {
        let now = Instant::now();
        let mut untold = Vec::new();
        for kind in Kind::ALL {
            let room = most - untold.len();
            untold.extend(self.of(kind).untold(room, now).into_iter().map(|untold| (kind, untold)));
        }
        untold
    }

    fn hear(&self, kind: Kind, told: &Untold, used: u64, left: Duration) {
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        self.of(kind).hear(told, used, left, Instant::now());
    }

    fn tell_again(&self) {
        self.windows.iter().for_each(Windows::tell_again);
    }

    fn of(&self, kind: Kind) -> &Windows {
        &self.windows[kind as usize]
    }
}

/// An IPv4 address, or the network that one customer of an IPv6 provider has: inside of it anybody
/// has any number of addresses.
fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() & !u128::from(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::new(&LimitsConfig { user_per_minute: 2, address_per_minute: 2, ..Default::default() })
    }

    fn address(text: &str) -> Subject {
        Subject::Address(text.parse().expect("an address"))
    }

    #[test]
    fn a_key_has_its_hour_and_a_person_a_minute() {
        let (limits, start) = (limits(), Instant::now());
        let (key, person) = (ApiKeyId::new(), UserId::new());
        for (subject, period) in [(Subject::Key { id: key, hourly: 2 }, 3600), (Subject::User(person), 60)] {
            assert_eq!(limits.take_at(subject, start).remaining, 1);
            assert_eq!(limits.take_at(subject, start).remaining, 0);
            let refused = limits.take_at(subject, start + Duration::from_secs(20));
            assert!(!refused.allowed);
            assert_eq!(refused.resets_in, Duration::from_secs(period - 20));
            assert!(limits.take_at(subject, start + Duration::from_secs(period)).allowed);
        }
        assert!(limits.take_at(Subject::Key { id: ApiKeyId::new(), hourly: 2 }, start).allowed);
    }

    #[test]
    fn a_limit_that_was_raised_counts_at_once() {
        let (limits, id, now) = (limits(), ApiKeyId::new(), Instant::now());
        assert!(limits.take_at(Subject::Key { id, hourly: 1 }, now).allowed);
        assert!(!limits.take_at(Subject::Key { id, hourly: 1 }, now).allowed);
        assert!(limits.take_at(Subject::Key { id, hourly: 2 }, now).allowed);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_an_ipv4_address_however_it_came() {
        let (limits, now) = (limits(), Instant::now());
        let used_up = |one: &str, two: &str| {
            limits.take_at(address(one), now);
            limits.take_at(address(two), now);
            !limits.take_at(address(one), now).allowed
        };
        assert!(used_up("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"), "one /64");
        assert!(!used_up("2001:db8:0:1::1", "2001:db8:0:2::1"), "two of them");
        assert!(used_up("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!used_up("192.0.2.2", "192.0.2.3"));
        assert!(limits.take_at(address("::"), now).allowed);
    }
}
