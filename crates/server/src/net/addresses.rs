//! Under which addresses viewers are told to reach the media port.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use media::peer::HostCandidate;

/// How old what is known of the interfaces may be. Reading them takes 50 µs, and a storm of joins
/// brings hundreds of offers in a second.
const INTERFACES_AGE_MAX: Duration = Duration::from_secs(2);

/// Addresses that are announced, at most: a browser makes a pair of each with each of its own, and
/// tries them one after the other. A machine that runs containers has dozens.
const MAX_ADDRESSES: usize = 12;

/// The candidates of the media port, as they are at present: interfaces come and go.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    udp: SocketAddr,
    tcp: Option<SocketAddr>,
    advertise: Vec<IpAddr>,
    read_at: Option<Instant>,
    newest: Vec<HostCandidate>,
}

impl Announced {
    /// `udp` and `tcp` are what is bound. Where there are `advertise`d addresses, they are announced
    /// and nothing else.
    pub(crate) fn new(udp: SocketAddr, tcp: Option<SocketAddr>, advertise: Vec<IpAddr>) -> Self {
        Self { udp, tcp, advertise, read_at: None, newest: Vec::new() }
    }

    /// The candidates, in order of preference, if they have changed since the last call.
    pub(crate) fn refresh(&mut self, now: Instant) -> Option<Vec<HostCandidate>> {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < INTERFACES_AGE_MAX;
        if self.read_at.is_some_and(is_recent) {
            return None;
        }
        self.read_at = Some(now);
        let depends_on_interfaces = self.advertise.is_empty() && self.has_unspecified();
        let interfaces = if depends_on_interfaces { interfaces() } else { Vec::new() };
        let candidates = self.candidates(&interfaces);
        if candidates == self.newest {
            return None;
        }
        tracing::info!(addresses = %listed(&candidates), "media is reached here");
        self.newest.clone_from(&candidates);
        Some(candidates)
    }

    fn has_unspecified(&self) -> bool {
        std::iter::once(self.udp).chain(self.tcp).any(|bound| bound.ip().is_unspecified())
    }

    fn candidates(&self, interfaces: &[IpAddr]) -> Vec<HostCandidate> {
        let at = |bound: SocketAddr| {
            let ips = self.addresses_of(bound, interfaces);
            ips.into_iter().map(move |ip| SocketAddr::new(ip, bound.port()))
        };
        let udp = at(self.udp).map(HostCandidate::udp);
        udp.chain(self.tcp.into_iter().flat_map(at).map(HostCandidate::tcp)).collect()
    }

    fn addresses_of(&self, bound: SocketAddr, interfaces: &[IpAddr]) -> Vec<IpAddr> {
        let all = if !self.advertise.is_empty() {
            self.advertise.clone()
        } else if bound.ip().is_unspecified() {
            reachable(bound, interfaces)
        } else {
            vec![bound.ip().to_canonical()]
        };
        let mut ordered = families_in_turn(&all);
        ordered.truncate(MAX_ADDRESSES);
        ordered
    }
}

/// Under which address people on the network open a port that is bound to `bound`: the first of its
/// IPv4 addresses, which are shorter to type, if it has any.
pub(crate) fn opened_at(bound: SocketAddr) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    let reachable = reachable(bound, &interfaces());
    let chosen = reachable.iter().find(|ip| ip.is_ipv4()).or(reachable.first());
    chosen.map_or(bound, |ip| SocketAddr::new(*ip, bound.port()))
}

fn listed(candidates: &[HostCandidate]) -> String {
    let names: Vec<String> = candidates.iter().map(|one| one.address.to_string()).collect();
    names.join(" ")
}

/// All addresses of this machine.
fn interfaces() -> Vec<IpAddr> {
    let all = if_addrs::get_if_addrs().inspect_err(|error| {
        tracing::warn!(%error, "the network interfaces cannot be read; no address is announced");
    });
    all.unwrap_or_default().into_iter().map(|interface| interface.ip()).collect()
}

/// What other machines can reach of a port that is bound to all addresses of `bound`'s family; an IPv6
/// socket takes IPv4 as well. Loopback, and behind it link-local addresses, only where there is
/// nothing else: the first leads nowhere from elsewhere, the second needs an interface's name.
fn reachable(bound: SocketAddr, interfaces: &[IpAddr]) -> Vec<IpAddr> {
    let ours = interfaces.iter().copied().filter(|ip| ip.is_ipv4() || bound.is_ipv6());
    let (scoped, wide): (Vec<IpAddr>, Vec<IpAddr>) =
        ours.partition(|ip| ip.is_loopback() || is_link_local(*ip));
    if !wide.is_empty() {
        return wide;
    }
    let (loopback, link_local): (Vec<IpAddr>, Vec<IpAddr>) =
        scoped.into_iter().partition(IpAddr::is_loopback);
    if loopback.is_empty() { link_local } else { loopback }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Each address once, IPv6 and IPv4 in turn, so that neither waits for all of the other when it does
/// not work (RFC 8421 §4); IPv6 begins.
fn families_in_turn(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut unique: Vec<IpAddr> = Vec::new();
    for ip in addresses.iter().map(IpAddr::to_canonical) {
        if !unique.contains(&ip) {
            unique.push(ip);
        }
    }
    let (mut v6, mut v4): (Vec<IpAddr>, Vec<IpAddr>) =
        unique.into_iter().partition(IpAddr::is_ipv6);
    v6.reverse();
    v4.reverse();
    let mut ordered = Vec::new();
    while !v6.is_empty() || !v4.is_empty() {
        ordered.extend(v6.pop());
        ordered.extend(v4.pop());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|ip| ip.parse().unwrap()).collect()
    }

    fn announced(udp: &str, tcp: Option<&str>, advertise: &str) -> Announced {
        let at = |text: &str| text.parse().unwrap();
        Announced::new(at(udp), tcp.map(at), ips(advertise))
    }

    const MACHINE: &str = "127.0.0.1 ::1 fe80::1 192.168.1.7 10.0.0.7 2001:db8::7 192.168.1.7";

    fn candidates(announced: &Announced, interfaces: &str) -> String {
        let lines = announced.candidates(&ips(interfaces)).into_iter().map(|one| {
            let kind = match one.kind {
                media::peer::CandidateKind::Udp => "udp",
                media::peer::CandidateKind::TcpPassive => "tcp",
            };
            format!("{kind} {}", one.address)
        });
        lines.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_port_of_both_families_is_announced_with_all_addresses() {
        let both = announced("[::]:8555", Some("[::]:8555"), "");
        assert_eq!(
            candidates(&both, MACHINE),
            "udp [2001:db8::7]:8555, udp 192.168.1.7:8555, udp 10.0.0.7:8555, \
             tcp [2001:db8::7]:8555, tcp 192.168.1.7:8555, tcp 10.0.0.7:8555"
        );
        let v4 = announced("0.0.0.0:8555", None, "");
        assert_eq!(candidates(&v4, MACHINE), "udp 192.168.1.7:8555, udp 10.0.0.7:8555");
    }

    #[test]
    fn loopback_and_link_local_are_for_machines_that_have_nothing_else() {
        let both = announced("[::]:1", None, "");
        assert_eq!(candidates(&both, "127.0.0.1 ::1 fe80::1"), "udp [::1]:1, udp 127.0.0.1:1");
        assert_eq!(candidates(&both, "fe80::1 169.254.0.1"), "udp [fe80::1]:1, udp 169.254.0.1:1");
    }

    #[test]
    fn advertised_addresses_stand_for_all_others() {
        let nat = announced("0.0.0.0:8555", Some("10.0.0.7:8556"), "203.0.113.5 2001:db8::5");
        assert_eq!(
            candidates(&nat, MACHINE),
            "udp [2001:db8::5]:8555, udp 203.0.113.5:8555, \
             tcp [2001:db8::5]:8556, tcp 203.0.113.5:8556"
        );
    }

    #[test]
    fn a_machine_of_containers_does_not_announce_them_all() {
        let many: Vec<String> = (0..50).map(|number| format!("172.17.{number}.1")).collect();
        let announced = announced("0.0.0.0:1", None, "");
        assert_eq!(announced.candidates(&ips(&many.join(" "))).len(), MAX_ADDRESSES);
    }

    #[test]
    fn what_has_not_changed_is_not_told_again() {
        let mut announced = announced("127.0.0.1:1", None, "");
        let start = Instant::now();
        assert_eq!(announced.refresh(start).map(|all| all.len()), Some(1));
        assert_eq!(announced.refresh(start), None);
        assert_eq!(announced.refresh(start + INTERFACES_AGE_MAX), None);
    }
}
