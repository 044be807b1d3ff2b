//! Our side of ICE: a lite agent (RFC 8445 §2.5) with one component, for one peer.
//!
//! It answers authentic checks and remembers from where they came. It sends no checks of its own,
//! nominates nothing, and moves no media: that a path works does not say that its other end is who
//! it was, since whoever sees a check can send it again from elsewhere.
//!
//! **Invariant:** nothing is answered that is not authentic.

use std::collections::VecDeque;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use crate::route::{Remote, Route};
use crate::stun::{BindingRequest, TransactionId};

/// Paths that passed a check, at most. A browser has a handful of interfaces, and each reaches a
/// handful of our addresses by UDP and by TCP; what was checked longest ago is forgotten beyond that.
pub(crate) const MAX_PATHS: usize = 16;

/// Checks that are remembered with where they came from. Chromium sends some 20 before it is connected
/// and then one every 2.5 s a path: enough for the whole of a handshake, and for two minutes after it.
const MAX_REMEMBERED_CHECKS: usize = 64;

/// Checks that are remembered as seen, beyond that: 3.5 h of one path, and as much again before half of
/// them are forgotten. Who keeps a vanished viewer's session alive with copies of its checks uses them
/// up, and needs that many.
const MAX_SEEN_CHECKS: usize = 5_000;

/// Bits of memory for them, 4 KiB, of which each check sets up to four. When it is full, one new check in
/// 23 is taken for a seen one: consent stands for 30 s, and checks come every 2.5 to 5 s.
const SEEN_BITS: usize = 1 << 15;

/// The ICE credentials of our side, chosen by the caller: it owns the randomness.
#[derive(Clone)]
pub struct IceCredentials {
    /// 4 to 256 ice-chars (RFC 8839 §5.4). Names the session in the first packets.
    pub ufrag: String,
    /// 22 to 256 ice-chars.
    pub password: String,
}

/// How a candidate is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateKind {
    /// By UDP.
    Udp,
    /// By a TCP connection that the peer opens (RFC 6544 §4.1, `tcptype passive`).
    TcpPassive,
}

/// An address under which peers reach us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostCandidate {
    /// Never unspecified.
    pub address: SocketAddr,
    /// By what.
    pub kind: CandidateKind,
}

impl HostCandidate {
    /// An address that is reached by UDP.
    pub fn udp(address: SocketAddr) -> Self {
        Self { address, kind: CandidateKind::Udp }
    }

    /// An address at which connections are taken.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { address, kind: CandidateKind::TcpPassive }
    }
}

/// The candidates as lines of SDP (RFC 8839 §5.1), the first of each kind preferred.
pub(crate) fn candidate_lines(candidates: &[HostCandidate]) -> String {
    let mut lines = String::new();
    for (index, candidate) in candidates.iter().enumerate() {
        // RFC 8445 §5.1.1.3: one for each address and transport, and no two here share both.
        let foundation = index + 1;
        let (transport, extension) = match candidate.kind {
            CandidateKind::Udp => ("udp", ""),
            CandidateKind::TcpPassive => ("tcp", " tcptype passive"),
        };
        let (ip, port) = (candidate.address.ip(), candidate.address.port());
        let priority = priority(candidate.kind, index);
        // Writing to a string cannot fail.
        let _ = write!(
            lines,
            "a=candidate:{foundation} 1 {transport} {priority} {ip} {port} typ host{extension}\r\n"
        );
    }
    lines
}

/// RFC 8445 §5.1.2.1. Host candidates have the type preference 126; by TCP 90, as in browsers, so
/// that all of UDP goes first. RFC 6544 §4.2 gives passive candidates the direction preference 4.
fn priority(kind: CandidateKind, index: usize) -> u32 {
    let later = (index as u32).min(8_000);
    let (type_preference, local_preference) = match kind {
        CandidateKind::Udp => (126, 65_535 - later),
        CandidateKind::TcpPassive => (90, (4 << 13) + 8_191 - later),
    };
    (type_preference << 24) | (local_preference << 8) | 255
}

/// Why a check was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Made without our password.
    NotAuthentic,
    /// The same request came from another address before.
    Replayed,
}

/// An authentic check.
#[derive(Debug)]
pub(crate) struct Checked {
    /// To be sent back the way that the check came.
    pub(crate) answer: Vec<u8>,
    /// The first check of this path.
    pub(crate) is_new_path: bool,
    /// The same request came the same way before: it is answered, and says nothing of the present.
    pub(crate) is_repeated: bool,
    /// The path that gave way to a new one.
    pub(crate) forgotten: Option<Route>,
    /// Made with the newest credentials.
    pub(crate) is_current: bool,
}

/// The lite agent of one session.
pub(crate) struct IceLite {
    credentials: IceCredentials,
    /// Those from before a restart, good until the first check with the new ones (RFC 8445 §9).
    previous: Option<IceCredentials>,
    /// Paths that passed a check, the one checked longest ago first.
    paths: VecDeque<Route>,
    /// The newest checks and from where each came first.
    checks: VecDeque<(TransactionId, Remote)>,
    /// Those from before.
    seen: Seen,
}

/// Remembers checks, with mistakes to one side: what was seen is known, and some that was not. Bounded in
/// two halves, of which the older one is forgotten when the newer one is full.
#[derive(Default)]
struct Seen {
    newer: SeenHalf,
    older: SeenHalf,
}

/// A Bloom filter. Transaction ids are the viewer's choice, and are looked at after its password: who
/// makes them collide makes himself look dead.
#[derive(Default)]
struct SeenHalf {
    /// [`SEEN_BITS`], or none before the first check.
    bits: Vec<u64>,
    /// Checks that nothing knew when they came.
    count: usize,
}

impl Seen {
    fn contains(&self, id: TransactionId) -> bool {
        self.newer.contains(id) || self.older.contains(id)
    }

    fn insert(&mut self, id: TransactionId) {
        // Copies fill no half, however many are sent. What is taken for one may be new, so that it is
        // remembered all the same.
        let is_copy = self.contains(id);
        if !is_copy && self.newer.count == MAX_SEEN_CHECKS {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(id);
        self.newer.count += usize::from(!is_copy);
    }
}

impl SeenHalf {
    fn contains(&self, id: TransactionId) -> bool {
        let is_set = |bit: usize| self.bits.get(bit / 64).is_some_and(|w| w >> (bit % 64) & 1 == 1);
        bits_of(id).into_iter().all(is_set)
    }

    fn insert(&mut self, id: TransactionId) {
        self.bits.resize(SEEN_BITS / 64, 0);
        for bit in bits_of(id) {
            self.bits[bit / 64] |= 1 << (bit % 64);
        }
    }
}

/// Four places among [`SEEN_BITS`], 15 bits of the hash each.
fn bits_of(id: TransactionId) -> [usize; 4] {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let hash = hasher.finish();
    [0, 15, 30, 45].map(|shift| (hash >> shift) as usize % SEEN_BITS)
}

impl IceLite {
    pub(crate) fn new(credentials: IceCredentials) -> Self {
        Self {
            credentials,
            previous: None,
            paths: VecDeque::new(),
            checks: VecDeque::new(),
            seen: Seen::default(),
        }
    }

    /// The password of the session's newest credentials.
    pub(crate) fn password(&self) -> &str {
        &self.credentials.password
    }

    /// Whether a check came this way.
    pub(crate) fn is_proven(&self, route: &Route) -> bool {
        self.paths.contains(route)
    }

    /// Paths that passed a check.
    pub(crate) fn paths(&self) -> impl Iterator<Item = Route> {
        self.paths.iter().copied()
    }

    /// New credentials (RFC 8445 §9). Paths stay: what flows goes on until there is a better way.
    /// Of several restarts before one has come about, the last one counts.
    pub(crate) fn restart(&mut self, credentials: IceCredentials) {
        let before = std::mem::replace(&mut self.credentials, credentials);
        // What is in use stays good, however often it is to be replaced.
        self.previous.get_or_insert(before);
    }

    /// The user fragment that is no longer good, once after a restart has come about.
    pub(crate) fn previous_ufrag(&self) -> Option<&str> {
        self.previous.as_ref().map(|previous| previous.ufrag.as_str())
    }

    /// A check that came along `route`. `in_use` is not forgotten, however long it was not checked.
    pub(crate) fn handle_check(
        &mut self,
        route: Route,
        request: &BindingRequest<'_>,
        in_use: Option<Route>,
    ) -> Result<Checked, Refusal> {
        let is_current = request.is_authentic(&self.credentials.password);
        let password = match &self.previous {
            Some(previous) if request.is_authentic(&previous.password) => previous.password.clone(),
            Some(_) | None if is_current => self.credentials.password.clone(),
            Some(_) | None => return Err(Refusal::NotAuthentic),
        };
        let is_repeated = self.note_check(request.transaction(), route.remote())?;
        if is_current {
            self.previous = None;
        }
        let (is_new_path, forgotten) = self.learn(route, in_use);
        let answer = if request.is_controlled {
            request.role_conflict(&password)
        } else {
            request.success(route.destination, &password)
        };
        Ok(Checked { answer, is_new_path, is_repeated, forgotten, is_current })
    }

    /// A request is repeated from where it came first; from elsewhere it is somebody else's copy. Of one
    /// from long ago it is not known from where it came, and it may even be new: it is answered, as the
    /// path may be a new one, and says nothing of the present. Answers whether it is repeated.
    fn note_check(&mut self, id: TransactionId, remote: Remote) -> Result<bool, Refusal> {
        if let Some((_, first)) = self.checks.iter().find(|(known, _)| *known == id) {
            return if *first == remote { Ok(true) } else { Err(Refusal::Replayed) };
        }
        let is_seen = self.seen.contains(id);
        if self.checks.len() == MAX_REMEMBERED_CHECKS
            && let Some((oldest, _)) = self.checks.pop_front()
        {
            self.seen.insert(oldest);
        }
        self.checks.push_back((id, remote));
        Ok(is_seen)
    }

    fn learn(&mut self, route: Route, in_use: Option<Route>) -> (bool, Option<Route>) {
        if let Some(known) = self.paths.iter().position(|path| *path == route) {
            self.paths.remove(known);
            self.paths.push_back(route);
            return (false, None);
        }
        let is_spare = |path: &Route| Some(*path) != in_use;
        let forgotten = (self.paths.len() == MAX_PATHS)
            .then(|| self.paths.iter().position(is_spare).and_then(|at| self.paths.remove(at)))
            .flatten();
        self.paths.push_back(route);
        (true, forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(name: &str) -> IceCredentials {
        IceCredentials {
            ufrag: name.to_owned(),
            password: format!("{name}-password-of-some-length"),
        }
    }

    fn route(port: u16) -> Route {
        let ours = SocketAddr::from(([10, 0, 0, 1], 8555));
        Route::new(ours, SocketAddr::from(([10, 0, 0, 2], port)))
    }

    fn check(ice: &mut IceLite, port: u16, id: u8, password: &str) -> Result<Checked, Refusal> {
        let packet = check_packet(id, password);
        ice.handle_check(route(port), &BindingRequest::parse(&packet).unwrap(), None)
    }

    /// A check signed with the password: `nominated` signs whatever it is given.
    fn check_packet(id: u8, password: &str) -> Vec<u8> {
        let mut packet = vec![0, 1, 0, 36, 0x21, 0x12, 0xa4, 0x42];
        packet.extend([id; 12]);
        packet.extend(b"\0\x06\0\x08us:them.\0\x08\0\x14");
        packet.extend([0; 20]);
        BindingRequest::parse(&packet).unwrap().nominated(password)
    }

    #[test]
    fn a_check_counts_where_it_came_from_first() {
        let ice = &mut IceLite::new(credentials("us"));
        let password = &credentials("us").password;
        assert!(check(ice, 1, 7, password).unwrap().is_new_path);
        assert!(!check(ice, 1, 7, password).unwrap().is_new_path, "it is repeated over UDP");
        assert_eq!(check(ice, 2, 7, password).unwrap_err(), Refusal::Replayed);
        assert!(!ice.is_proven(&route(2)));
        assert!(check(ice, 2, 8, password).unwrap().is_new_path);
        assert_eq!(check(ice, 3, 9, "forged").unwrap_err(), Refusal::NotAuthentic);
    }

    #[test]
    fn the_path_in_use_is_not_forgotten() {
        let ice = &mut IceLite::new(credentials("us"));
        for port in 0..200 {
            let packet = check_packet(port as u8, ice.password());
            let request = BindingRequest::parse(&packet).unwrap();
            let checked = ice.handle_check(route(port), &request, Some(route(3))).unwrap();
            assert_eq!(checked.forgotten.is_some(), usize::from(port) >= MAX_PATHS);
            assert!(ice.paths.len() <= MAX_PATHS && ice.checks.len() <= MAX_REMEMBERED_CHECKS);
        }
        assert!(ice.is_proven(&route(3)) && ice.is_proven(&route(199)));
    }

    #[test]
    fn a_check_from_long_ago_says_nothing_of_the_present() {
        let ice = &mut IceLite::new(credentials("us"));
        let remote = route(1).remote();
        let id = |number: usize| {
            let mut id = [7; 12];
            id[8..].copy_from_slice(&(number as u32).to_be_bytes());
            id
        };
        let mut mistaken = 0;
        for number in 0..4 * MAX_SEEN_CHECKS {
            mistaken += usize::from(ice.note_check(id(number), remote).unwrap());
            assert!(ice.seen.newer.bits.len() * 64 <= SEEN_BITS);
            assert!(ice.seen.newer.count <= MAX_SEEN_CHECKS);
        }
        assert!(mistaken < 4 * MAX_SEEN_CHECKS / 10, "{mistaken} new ones were taken for old");
        let copies = (3 * MAX_SEEN_CHECKS..4 * MAX_SEEN_CHECKS).map(id);
        let believed = copies.filter(|id| !ice.note_check(*id, remote).unwrap()).count();
        assert_eq!(believed, 0);
    }

    #[test]
    fn the_old_credentials_are_good_until_the_new_ones_are_used() {
        let ice = &mut IceLite::new(credentials("us"));
        let (old, new) = (credentials("us").password, credentials("anew").password);
        ice.restart(credentials("anew"));
        assert!(!check(ice, 1, 1, &old).unwrap().is_current);
        assert_eq!(ice.previous_ufrag(), Some("us"));
        assert!(check(ice, 1, 2, &new).unwrap().is_current);
        assert_eq!(ice.previous_ufrag(), None);
        assert_eq!(check(ice, 1, 3, &old).unwrap_err(), Refusal::NotAuthentic);
    }

    #[test]
    fn udp_goes_before_tcp_and_the_first_before_the_second() {
        let [v6, v4] = ["[2001:db8::1]:8555", "192.0.2.1:8555"].map(|text| text.parse().unwrap());
        let lines = candidate_lines(&[
            HostCandidate::udp(v6),
            HostCandidate::udp(v4),
            HostCandidate::tcp(v6),
            HostCandidate::tcp(v4),
        ]);
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            [
                "a=candidate:1 1 udp 2130706431 2001:db8::1 8555 typ host",
                "a=candidate:2 1 udp 2130706175 192.0.2.1 8555 typ host",
                "a=candidate:3 1 tcp 1520434687 2001:db8::1 8555 typ host tcptype passive",
                "a=candidate:4 1 tcp 1520434431 192.0.2.1 8555 typ host tcptype passive",
            ]
        );
    }
}
