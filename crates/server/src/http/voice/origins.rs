//! Which pages may speak and listen without being named: those of hosts that the Internet cannot have.
//!
//! A browser says with each WebSocket whose page opens it. A page of the Internet that somebody of this
//! network looks at must not reach his microphones' relay; the dashboard on `homeassistant.local` must.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::HeaderValue;
use url::{Host, Url};

/// Names that are nobody's on the Internet: RFC 6762 (`local`), RFC 6761 (`localhost`, `test`), RFC 8375
/// (`home.arpa`), ICANN's `internal`; and what routers call the network behind them. `fritz.box` is a
/// registered name of the maker of those routers.
const OWN_NAMES: [&str; 9] = [
    "local",
    "localhost",
    "test",
    "home.arpa",
    "internal",
    "lan",
    "home",
    "localdomain",
    "fritz.box",
];

/// Whether pages of an origin may use the relay where no origins are named. `client` is where the browser
/// is: pages of files have the origin `null`, which any page can give itself, so that they count on this
/// machine only.
pub(super) fn is_of_this_network(origin: &HeaderValue, client: IpAddr) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    if origin == "null" || origin == "file://" {
        return client.is_loopback();
    }
    let Ok(origin) = Url::parse(origin) else { return false };
    match origin.host() {
        Some(Host::Ipv4(address)) => is_own_v4(address),
        Some(Host::Ipv6(address)) => is_own_v6(address),
        Some(Host::Domain(name)) => is_own_name(name.trim_end_matches('.')),
        None => false,
    }
}

/// RFC 1918, RFC 3927, RFC 6598 (overlay networks use that) and loopback.
fn is_own_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || (first == 100 && (64..128).contains(&second))
}

/// RFC 4193, RFC 4291 and loopback.
fn is_own_v6(address: Ipv6Addr) -> bool {
    let mapped = address.to_ipv4_mapped().is_some_and(is_own_v4);
    address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local() || mapped
}

/// A name without a dot is a host of this network.
fn is_own_name(name: &str) -> bool {
    let is_below = |own: &str| {
        name.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    !name.is_empty() && (!name.contains('.') || OWN_NAMES.iter().any(|own| is_below(own)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7));

    fn admits(origin: &str, client: IpAddr) -> bool {
        is_of_this_network(&HeaderValue::from_str(origin).unwrap(), client)
    }

    #[test]
    fn pages_of_hosts_of_a_home_are_let_in() {
        for origin in [
            "http://homeassistant.local:8123",
            "http://homeassistant:8123",
            "https://ha.home.arpa",
            "http://fritz.box",
            "http://nas.fritz.box:8123",
            "http://192.168.1.4:8123",
            "http://10.0.0.4",
            "http://172.30.32.1:8123",
            "http://100.101.102.103:8123",
            "http://127.0.0.1:5173",
            "http://localhost:5173",
            "http://[fd00::4]:8123",
            "http://[::1]:8123",
        ] {
            assert!(admits(origin, NEAR), "{origin}");
        }
    }

    #[test]
    fn pages_of_the_internet_are_not() {
        for origin in [
            "https://evil.example",
            "https://evillocal.com",
            "https://local.evil.com",
            "https://notfritz.box",
            "https://xn--fritz.box.evil.com",
            "http://203.0.113.9",
            "http://8.8.8.8:8123",
            "http://[2001:db8::1]",
            "http://[::ffff:8.8.8.8]",
            "null",
            "file://",
            "data:",
            "",
            "https://",
        ] {
            assert!(!admits(origin, NEAR), "{origin}");
        }
    }

    #[test]
    fn a_page_of_a_file_counts_on_this_machine_only() {
        assert!(admits("null", IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(admits("null", IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert!(!admits("null", NEAR));
    }
}
