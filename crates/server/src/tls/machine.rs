//! Under which names and addresses this machine is opened from its network.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses in a certificate, at most: 2 KiB of them. A machine that runs containers has dozens; the
/// bound is for one that has gone mad.
const ADDRESSES_MAX: usize = 256;

/// Longest name of a host, in bytes (RFC 1035 §2.3.4).
const HOST_LENGTH_MAX: usize = 253;

/// Longest name of a machine in a certificate's title, which has 64 characters (RFC 5280 appendix A.1)
/// and other words.
const TITLE_LENGTH_MAX: usize = 32;

/// The top-level domains of the web, as far as they are written in ASCII letters. Others begin with
/// `xn--`. One that is delegated later is missing: no more is lost than without the list.
const TOP_LEVEL_DOMAINS: &str = include_str!("top_level_domains.txt");

/// Where Linux tells it.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";

/// What a certificate of this machine must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    host: Option<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Machine {
    /// As it is at present: interfaces come and go. `advertised` are addresses that lead here through
    /// NAT.
    pub(super) fn look(advertised: &[IpAddr]) -> Self {
        let interfaces = if_addrs::get_if_addrs().inspect_err(|error| {
            tracing::debug!(%error, "the network interfaces cannot be read");
        });
        let interfaces = interfaces.unwrap_or_default().into_iter().map(|interface| interface.ip());
        let host = std::fs::read_to_string(HOST_NAME_FILE).unwrap_or_default();
        Self::new(host.trim(), interfaces.chain(advertised.iter().copied()))
    }

    /// Link-local IPv6 addresses are left out: browsers take none, for they need an interface's name.
    pub(super) fn new(host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let of_interfaces = addresses.into_iter().map(|ip| ip.to_canonical()).filter(is_openable);
        let addresses = loopback.into_iter().chain(of_interfaces).take(ADDRESSES_MAX).collect();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        Self { host: is_host_name(&host).then_some(host), addresses }
    }

    /// The name of the machine itself, for people to know it by; at most 32 characters.
    pub(super) fn title(&self) -> &str {
        let host = self.host.as_deref().unwrap_or("this machine");
        // All names are ASCII.
        host.get(..TITLE_LENGTH_MAX).unwrap_or(host)
    }

    /// All addresses, of which at least loopback is there.
    pub(super) fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.addresses
    }

    /// All names: the host's own, the one that multicast DNS gives it (RFC 6762 §3), and `localhost`.
    ///
    /// A host that is called `dev` or `cam` is not known by that alone: who vouches for a name vouches
    /// for what ends with it, which would be a part of the web.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let first_label =
            |host: &String| host.split('.').next().map(|label| format!("{label}.local"));
        let multicast = self.host.as_ref().and_then(first_label);
        let own = self.host.iter().filter(|host| !is_top_level_domain(host)).cloned();
        own.chain(multicast).chain(["localhost".to_owned()]).collect()
    }
}

fn is_openable(ip: &IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !is_link_local && !ip.is_unspecified() && !ip.is_multicast()
}

/// In small letters.
fn is_top_level_domain(name: &str) -> bool {
    name.starts_with("xn--") && !name.contains('.')
        || TOP_LEVEL_DOMAINS.split_ascii_whitespace().any(|domain| domain == name)
}

/// What can stand in a certificate as the name of a host (RFC 1123 §2.1).
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.len() < 64 && label.bytes().all(is_letter)
    };
    let looks_like_address = name.parse::<IpAddr>().is_ok();
    name.len() <= HOST_LENGTH_MAX && !looks_like_address && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(host: &str, addresses: &str) -> Machine {
        Machine::new(host, addresses.split_whitespace().map(|ip| ip.parse().unwrap()))
    }

    fn names(host: &str) -> String {
        machine(host, "").names().into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_host_is_known_by_its_own_name_by_multicast_dns_and_as_localhost() {
        assert_eq!(names("NAS"), "localhost nas nas.local");
        assert_eq!(names("nas.lan"), "localhost nas.lan nas.local");
        assert_eq!(names("cam"), "cam.local localhost", "all of .cam is not this machine");
        assert_eq!(names("xn--p1ai"), "localhost xn--p1ai.local");
        for none in ["", "(none)", "my_host", "10.0.0.1", "a..b", "-\u{0}"] {
            assert_eq!(names(none), "localhost", "{none:?}");
        }
    }

    #[test]
    fn addresses_that_a_browser_cannot_open_are_left_out() {
        let machine =
            machine("a", "192.168.1.7 fe80::1 ::ffff:10.0.0.1 fd00::7 0.0.0.0 192.168.1.7");
        let listed: Vec<String> = machine.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(listed, ["10.0.0.1", "127.0.0.1", "192.168.1.7", "::1", "fd00::7"]);
    }

    #[test]
    fn a_machine_with_ever_more_addresses_does_not_name_them_all() {
        let many =
            (0..300_u16).map(|n| IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]));
        assert_eq!(Machine::new("a", many).addresses().len(), ADDRESSES_MAX);
    }

    #[test]
    fn this_machine_has_a_loopback_and_what_leads_to_it() {
        let nat: IpAddr = "203.0.113.5".parse().unwrap();
        let machine = Machine::look(&[nat]);
        assert!(machine.addresses().contains(&nat));
        assert!(machine.addresses().contains(&Ipv4Addr::LOCALHOST.into()));
    }
}
