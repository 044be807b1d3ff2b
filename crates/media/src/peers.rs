//! All peer connections of one handshake thread: routing, time, and what they ask to be done.
//!
//! Sans-IO: datagrams and offers in, [`PeersOutput`] out. It sends no media; a connected viewer is
//! handed to the fan-out with [`PeersOutput::Attach`], and only STUN and DTLS stay here.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::frame::{StreamId, ViewerId};
use crate::negotiated::Negotiated;
use crate::peer::{
    Answer, IceCredentials, OfferError, Path, Peer, PeerFactory, PeerOutput, Received, SessionKeys,
};
use crate::stun::BindingRequest;

/// How long ICE and DTLS may take. Browsers give ICE up after 15 to 30 s.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often at most a viewer is reported to be alive.
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a goodbye may take to leave: close_notify is one datagram, sent at once.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// Why a viewer's session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The peer closed DTLS or said BYE.
    Peer,
    /// ICE or DTLS did not finish within [`HANDSHAKE_TIMEOUT`].
    NeverConnected,
    /// ICE or DTLS failed.
    Handshake,
    /// We were asked to end it.
    Asked,
}

/// What is to be done for the peers.
#[derive(Debug)]
pub enum PeersOutput {
    /// Send STUN or DTLS.
    Transmit {
        /// Our address that the viewer talks to.
        source: SocketAddr,
        /// The viewer's address.
        destination: SocketAddr,
        /// The datagram.
        contents: Vec<u8>,
    },
    /// DTLS is done: media may flow.
    Attach(Box<Attach>),
    /// Media goes to another address from here on.
    Moved {
        /// Who moved.
        viewer: ViewerId,
        /// Our address on the new path.
        source: SocketAddr,
        /// The viewer's new address.
        destination: SocketAddr,
    },
    /// An authentic check came, at most once an [`ALIVE_INTERVAL`].
    Alive {
        /// Who lives.
        viewer: ViewerId,
        /// When the check arrived.
        at: Instant,
    },
    /// The session is over. Comes exactly once for every accepted viewer.
    Closed {
        /// Whose session.
        viewer: ViewerId,
        /// What ended it.
        reason: CloseReason,
    },
}

/// A viewer that is ready for media.
#[derive(Debug)]
pub struct Attach {
    /// Who.
    pub viewer: ViewerId,
    /// What it watches.
    pub stream: StreamId,
    /// Our address that it talks to.
    pub source: SocketAddr,
    /// Its address.
    pub destination: SocketAddr,
    /// Keys for our egress.
    pub keys: SessionKeys,
    /// SSRCs and payload types.
    pub negotiated: Negotiated,
    /// From the offer to the end of the handshake.
    pub handshake: Duration,
}

struct Entry {
    peer: Peer,
    stream: StreamId,
    negotiated: Negotiated,
    ufrag: String,
    /// Our address in the newest authentic check.
    local: SocketAddr,
    selected: Option<Path>,
    accepted_at: Instant,
    phase: Phase,
    deadline: Instant,
    last_alive: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshaking,
    Connected,
    /// The goodbye is leaving.
    Closing(CloseReason),
}

/// All peer connections of one handshake thread. Its size is bounded by the reservations that the
/// caller accepts offers for.
pub struct PeerTable {
    factory: PeerFactory,
    /// Boxed: an entry takes 11 KB, and a table has up to twice the places that it needs.
    peers: HashMap<ViewerId, Box<Entry>>,
    by_ufrag: HashMap<String, ViewerId>,
    by_address: HashMap<SocketAddr, ViewerId>,
    deadlines: BTreeSet<(Instant, ViewerId)>,
    outputs: VecDeque<PeersOutput>,
}

impl PeerTable {
    /// An empty table whose peers share the factory.
    pub fn new(factory: PeerFactory) -> Self {
        Self {
            factory,
            peers: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            deadlines: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Peers that are not yet gone.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Everybody who is not yet gone, in no order.
    pub fn viewers(&self) -> Vec<ViewerId> {
        self.peers.keys().copied().collect()
    }

    /// Whether nobody is here and nothing is remembered of anybody.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
            && self.by_ufrag.is_empty()
            && self.by_address.is_empty()
            && self.deadlines.is_empty()
    }

    /// Answers a viewer's offer. `credentials` must be fresh: the user fragment names the session.
    pub fn handle_offer(
        &mut self,
        viewer: ViewerId,
        stream: StreamId,
        offer: &str,
        credentials: &IceCredentials,
        now: Instant,
    ) -> Result<Answer, OfferError> {
        let (peer, answer) = self.factory.answer(offer, credentials, now)?;
        let entry = Entry {
            peer,
            stream,
            negotiated: answer.negotiated.clone(),
            ufrag: credentials.ufrag.clone(),
            local: SocketAddr::from(([0, 0, 0, 0], 0)),
            selected: None,
            accepted_at: now,
            phase: Phase::Handshaking,
            deadline: now,
            last_alive: None,
        };
        self.deadlines.insert((now, viewer));
        self.by_ufrag.insert(credentials.ufrag.clone(), viewer);
        self.peers.insert(viewer, Box::new(entry));
        self.drive(viewer, now);
        Ok(answer)
    }

    /// A datagram whose first byte says STUN or DTLS. `local` is our address it arrived at.
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        packet: &[u8],
        now: Instant,
    ) -> Received {
        let request = BindingRequest::parse(packet);
        let viewer = match &request {
            Some(request) => {
                request.local_ufrag().and_then(|ufrag| self.by_ufrag.get(ufrag)).copied()
            }
            // Only requests are answered: a lite agent sends no checks, so responses are strays.
            None if matches!(packet.first(), Some(20..=63)) => {
                self.by_address.get(&source).copied()
            }
            None => None,
        };
        let Some(viewer) = viewer else { return Received::Dropped };
        let Some(entry) = self.peers.get_mut(&viewer) else { return Received::Dropped };
        let received = match &request {
            Some(request) => entry.peer.handle_check(source, local, request, packet, now),
            None => entry.peer.handle_dtls(source, local, packet, now),
        };
        if received == Received::Dropped {
            return received;
        }
        if received == Received::Authentic {
            entry.local = local;
            if let Some(forgotten) = entry.peer.take_forgotten()
                && self.by_address.get(&forgotten) == Some(&viewer)
            {
                self.by_address.remove(&forgotten);
            }
            self.by_address.insert(source, viewer);
            self.note_alive(viewer, now);
        }
        self.drive(viewer, now);
        received
    }

    /// Starts a viewer's goodbye; `Closed` follows. Unknown viewers are ignored.
    pub fn handle_close(&mut self, viewer: ViewerId, reason: CloseReason, now: Instant) {
        let Some(entry) = self.peers.get_mut(&viewer) else { return };
        if matches!(entry.phase, Phase::Closing(_)) {
            return;
        }
        entry.phase = Phase::Closing(reason);
        entry.accepted_at = now;
        entry.peer.close();
        self.drive(viewer, now);
    }

    /// The next moment at which [`Self::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, viewer)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            let Some(entry) = self.peers.get_mut(&viewer) else {
                self.deadlines.pop_first();
                continue;
            };
            match entry.phase {
                Phase::Closing(reason) if now >= entry.accepted_at + CLOSE_TIMEOUT => {
                    self.remove(viewer, reason);
                    continue;
                }
                Phase::Handshaking if now >= entry.accepted_at + HANDSHAKE_TIMEOUT => {
                    self.remove(viewer, CloseReason::NeverConnected);
                    continue;
                }
                Phase::Handshaking | Phase::Connected | Phase::Closing(_) => {}
            }
            entry.peer.handle_timeout(now);
            self.drive(viewer, now);
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<PeersOutput> {
        self.outputs.pop_front()
    }

    /// Drains one peer and sets its next deadline.
    fn drive(&mut self, viewer: ViewerId, now: Instant) {
        let Some(entry) = self.peers.get_mut(&viewer) else { return };
        let next = loop {
            match entry.peer.poll_output() {
                PeerOutput::Transmit { destination, contents } => {
                    let source = entry.local;
                    self.outputs.push_back(PeersOutput::Transmit { source, destination, contents });
                }
                PeerOutput::Connected(keys) => entry.attach(viewer, keys, now, &mut self.outputs),
                PeerOutput::Closed => break None,
                PeerOutput::Timeout(at) => break Some(at),
            }
        };
        entry.follow_selection(viewer, &mut self.outputs);
        let Some(next) = next else {
            let reason = match entry.phase {
                Phase::Closing(reason) => reason,
                Phase::Connected => CloseReason::Peer,
                Phase::Handshaking => CloseReason::Handshake,
            };
            self.remove(viewer, reason);
            return;
        };
        self.deadlines.remove(&(entry.deadline, viewer));
        // A deadline in the past would be driven for ever within one instant.
        let next = entry.own_deadline().map_or(next, |own| own.min(next));
        entry.deadline = next.max(now + Duration::from_millis(1));
        self.deadlines.insert((entry.deadline, viewer));
    }

    fn note_alive(&mut self, viewer: ViewerId, now: Instant) {
        let Some(entry) = self.peers.get_mut(&viewer) else { return };
        if entry.last_alive.is_none_or(|last| now >= last + ALIVE_INTERVAL) {
            entry.last_alive = Some(now);
            self.outputs.push_back(PeersOutput::Alive { viewer, at: now });
        }
    }

    fn remove(&mut self, viewer: ViewerId, reason: CloseReason) {
        let Some(entry) = self.peers.remove(&viewer) else { return };
        self.deadlines.remove(&(entry.deadline, viewer));
        self.by_ufrag.remove(&entry.ufrag);
        self.by_address.retain(|_, owner| *owner != viewer);
        self.outputs.push_back(PeersOutput::Closed { viewer, reason });
    }
}

impl Entry {
    /// When this table itself must look at the peer, whatever str0m says.
    /// A connected viewer's silence is not judged here: its lease ends.
    fn own_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Handshaking => Some(self.accepted_at + HANDSHAKE_TIMEOUT),
            Phase::Closing(_) => Some(self.accepted_at + CLOSE_TIMEOUT),
            Phase::Connected => None,
        }
    }

    fn attach(
        &mut self,
        viewer: ViewerId,
        keys: SessionKeys,
        now: Instant,
        outputs: &mut VecDeque<PeersOutput>,
    ) {
        let (Phase::Handshaking, Some(path)) = (self.phase, self.peer.selected_path()) else {
            return;
        };
        self.phase = Phase::Connected;
        self.selected = Some(path);
        outputs.push_back(PeersOutput::Attach(Box::new(Attach {
            viewer,
            stream: self.stream,
            source: path.local,
            destination: path.remote,
            keys,
            negotiated: self.negotiated.clone(),
            handshake: now - self.accepted_at,
        })));
    }

    /// Tells when a connected viewer nominated another pair.
    fn follow_selection(&mut self, viewer: ViewerId, outputs: &mut VecDeque<PeersOutput>) {
        let selected = self.peer.selected_path();
        if self.phase != Phase::Connected || selected == self.selected {
            return;
        }
        self.selected = selected;
        if let Some(Path { local: source, remote: destination }) = selected {
            outputs.push_back(PeersOutput::Moved { viewer, source, destination });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEWER: ViewerId = ViewerId(1);
    const OFFER: &str = include_str!("../../../e2e/sdp/chromium.sdp");

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn table() -> (PeerTable, Instant) {
        let now = Instant::now();
        let candidates = vec![address(1), address(2)];
        let mut table = PeerTable::new(PeerFactory::new(candidates).unwrap());
        table.handle_offer(VIEWER, StreamId(1), OFFER, &credentials(), now).unwrap();
        (table, now)
    }

    fn credentials() -> IceCredentials {
        IceCredentials {
            ufrag: "Aserver".to_owned(),
            password: "server-password-of-32-characters".to_owned(),
        }
    }

    fn address(number: u32) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + number), 4_000))
    }

    /// An authentic check that nominates.
    fn check() -> Vec<u8> {
        let username = b"Aserver:viewer00";
        let mut packet = vec![0, 1, 0, 44, 0x21, 0x12, 0xa4, 0x42];
        packet.extend([7; 12]);
        packet.extend([0, 6, 0, 16]);
        packet.extend(username);
        packet.extend([0, 8, 0, 20]);
        packet.extend([0; 20]);
        BindingRequest::parse(&packet).unwrap().nominated(&credentials().password)
    }

    #[test]
    fn a_viewer_that_comes_from_ever_new_addresses_takes_no_more_room() {
        let (mut table, now) = table();
        for number in 0..3_000 {
            table.handle_datagram(address(number), address(1), &check(), now);
            while table.poll_output().is_some() {}
            assert!(table.by_address.len() <= 16);
        }
        let known = address(999);
        assert_eq!(table.handle_datagram(known, address(1), &check(), now), Received::Authentic);
        let too_new = address(5_000);
        assert_eq!(table.handle_datagram(too_new, address(1), &check(), now), Received::Dropped);
    }

    #[test]
    fn media_follows_the_nominated_pair_with_both_its_ends() {
        let (mut table, now) = table();
        table.handle_datagram(address(9), address(1), &check(), now);
        let entry = table.peers.get_mut(&VIEWER).unwrap();
        // As if DTLS were done.
        entry.phase = Phase::Connected;
        entry.selected = entry.peer.selected_path();
        while table.poll_output().is_some() {}
        table.handle_datagram(address(9), address(2), &check(), now);
        let moved = std::iter::from_fn(|| table.poll_output()).find_map(|output| match output {
            PeersOutput::Moved { source, destination, .. } => Some((source, destination)),
            PeersOutput::Transmit { .. }
            | PeersOutput::Attach(_)
            | PeersOutput::Alive { .. }
            | PeersOutput::Closed { .. } => None,
        });
        assert_eq!(moved, Some((address(2), address(9))));
    }
}
