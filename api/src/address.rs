//! Whose request it is: the address of the connection, or what our own proxies tell of it.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use streamspace_common::config::Networks;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Each proxy appends whom it heard the request from, so the header is read from its end, and only as
/// long as those who wrote it are trusted: what stands before is anybody's text.
pub fn of_client(peer: IpAddr, headers: &HeaderMap, trusted: Option<&Networks>) -> IpAddr {
    let mut nearest = peer.to_canonical();
    let Some(trusted) = trusted else { return nearest };
    let told: Vec<&[u8]> = headers
        .get_all(FORWARDED_FOR)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .collect();
    for hop in told.into_iter().rev() {
        if !trusted.contain(nearest) {
            break;
        }
        match read(hop) {
            Some(address) => nearest = address.to_canonical(),
            // `unknown`, or no address: further away nothing is vouched for.
            None => break,
        }
    }
    nearest
}

/// `192.0.2.7`, `2001:db8::7`, and with a port as some proxies write it.
fn read(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let trusted: Networks = "10.0.0.0/8, 192.0.2.1".parse().expect("networks");
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().expect("a value"));
        }
        of_client(peer.parse().expect("an address"), &headers, Some(&trusted)).to_string()
    }

    #[test]
    fn a_trusted_proxy_tells_whose_request_it_is() {
        assert_eq!(client("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("::ffff:10.0.0.1", &["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(client("192.0.2.1", &["2001:db8::7, 10.1.1.1"]), "2001:db8::7");
        assert_eq!(client("192.0.2.1", &["[2001:db8::7]:80", "10.1.1.1"]), "2001:db8::7");
        assert_eq!(client("10.0.0.1", &["10.2.0.1, 10.3.0.1"]), "10.2.0.1", "all are ours");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_a_client_writes_itself_is_not_believed() {
        // Straight to us.
        assert_eq!(client("203.0.113.9", &["127.0.0.1"]), "203.0.113.9");
        // Through our proxy, which appended the truth; in the same line or in one of its own.
        assert_eq!(client("10.0.0.1", &["127.0.0.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["127.0.0.1", "203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["10.9.9.9, 203.0.113.9, 10.0.0.2"]), "203.0.113.9");
        // Nonsense ends what can be known.
        assert_eq!(client("10.0.0.1", &["127.0.0.1, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &["127.0.0.1,"]), "10.0.0.1");
    }

    #[test]
    fn without_proxies_of_ours_the_connection_tells() {
        let headers = HeaderMap::from_iter([(FORWARDED_FOR, "203.0.113.9".parse().expect("a value"))]);
        assert_eq!(of_client(IpAddr::from([10, 0, 0, 1]), &headers, None), IpAddr::from([10, 0, 0, 1]));
    }
}
