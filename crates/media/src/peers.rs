//! All peer connections of one handshake thread: routing, time, and what they ask to be done.
//!
//! Sans-IO: datagrams and offers in, [`PeersOutput`] out. It sends no media; a connected viewer is
//! handed to the fan-out with [`PeersOutput::Attach`], and only STUN and DTLS stay here.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::frame::{StreamId, ViewerId};
use crate::negotiated::Negotiated;
use crate::peer::{
    Answer, AnswerError, HostCandidate, IceCredentials, OfferError, Peer, PeerFactory, PeerOutput,
    Proven, Received, SessionKeys,
};
use crate::route::{Remote, Route, Transport};
use crate::stun::BindingRequest;

/// How long ICE and DTLS may take. Browsers give ICE up after 15 to 30 s.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often at most a viewer is reported to be alive.
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long media is sent without an authentic check (RFC 7675 §5.1). A lite agent sends no checks
/// of its own, so the viewer's are what shows that it wants to go on; browsers send one every 2.5 s
/// to 5 s. A viewer that falls silent altogether is gone before, by its lease.
pub const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);

/// A path along which no check came for so long is given up when the viewer nominates another.
/// Consent checks come every 5 s ± 20 % (RFC 7675 §5.1), so one and a half are missing.
const PATH_SILENCE: Duration = Duration::from_secs(9);

/// Viewers that claim an address by checks, at most: each is asked whether a DTLS packet is its own. One
/// address has one viewer, unless somebody sends checks with a forged source.
const MAX_CLAIMANTS: usize = 4;

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
    /// No authentic check came for [`CONSENT_TIMEOUT`], though other packets may have.
    ConsentExpired,
    /// What it sent made something in here panic.
    Failed,
}

/// What is to be done for the peers.
#[derive(Debug)]
pub enum PeersOutput {
    /// Send STUN or DTLS.
    Transmit {
        /// Where from and where to.
        route: Route,
        /// The packet.
        contents: Vec<u8>,
    },
    /// DTLS is done: media may flow.
    Attach(Box<Attach>),
    /// A check of an attached viewer came along another path. Media goes there once the viewer's
    /// feedback comes from it: a check may be somebody else's copy.
    PathProven {
        /// Whose check.
        viewer: ViewerId,
        /// Along which it came.
        route: Route,
    },
    /// A path counts no longer: there were too many newer ones, or the session is over and the path
    /// a connection that can be closed.
    PathForgotten {
        /// Whose path.
        viewer: ViewerId,
        /// Which.
        route: Route,
    },
    /// Media goes along another path from here on: its own has fallen silent, and the viewer
    /// nominated this one.
    Moved {
        /// Who moved.
        viewer: ViewerId,
        /// The new path.
        route: Route,
    },
    /// An authentic check came, at most once an [`ALIVE_INTERVAL`].
    Alive {
        /// Who lives.
        viewer: ViewerId,
        /// When the check arrived.
        at: Instant,
        /// Along which path.
        route: Route,
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
    /// Where it is.
    pub route: Route,
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
    /// When the newest authentic check came, whichever way.
    checked_at: Instant,
    /// When the newest one came along the path that is in use.
    heard_at: Instant,
    accepted_at: Instant,
    phase: Phase,
    deadline: Instant,
    last_alive: Option<Instant>,
}

/// What is known of who sent a check from an address, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Its DTLS was done there, and its media goes there.
    Proven,
    /// Its DTLS may come from there.
    Handshaking,
    /// It has another address, and sent a check.
    Elsewhere,
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
    /// Who sent authentic checks from where. Each peer has at most as many as it has paths, each address
    /// at most [`MAX_CLAIMANTS`].
    by_remote: BTreeSet<(Remote, ViewerId)>,
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
            by_remote: BTreeSet::new(),
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
            && self.by_remote.is_empty()
            && self.deadlines.is_empty()
    }

    /// What is announced to viewers from here on, in order of preference.
    pub fn set_candidates(&mut self, candidates: Vec<HostCandidate>) {
        self.factory.set_candidates(candidates);
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
        let entry = Entry::new(peer, stream, &credentials.ufrag, now);
        self.add(viewer, Entry { negotiated: answer.negotiated.clone(), ..entry }, now);
        Ok(answer)
    }

    /// Offers a receiver the sound of a stream; returns the SDP. Its answer goes to
    /// [`Self::handle_answer`]; the session ends when none comes within [`HANDSHAKE_TIMEOUT`], in which
    /// the handshake has to be done as well. `credentials` must be fresh.
    pub fn handle_receiver(
        &mut self,
        viewer: ViewerId,
        stream: StreamId,
        credentials: &IceCredentials,
        now: Instant,
    ) -> String {
        let (peer, offer) = self.factory.offer_sound(credentials, now);
        self.add(viewer, Entry::new(peer, stream, &credentials.ufrag, now), now);
        offer
    }

    /// A receiver's answer to what it was offered.
    pub fn handle_answer(
        &mut self,
        viewer: ViewerId,
        answer: &str,
        now: Instant,
    ) -> Result<(), AnswerError> {
        let entry = self.peers.get_mut(&viewer).ok_or(AnswerError::Over)?;
        if entry.phase != Phase::Handshaking {
            return Err(AnswerError::Over);
        }
        entry.negotiated = entry.peer.handle_answer(answer, now)?;
        self.drive(viewer, now);
        Ok(())
    }

    fn add(&mut self, viewer: ViewerId, entry: Entry, now: Instant) {
        self.deadlines.insert((entry.deadline, viewer));
        self.by_ufrag.insert(entry.ufrag.clone(), viewer);
        self.peers.insert(viewer, Box::new(entry));
        self.drive(viewer, now);
    }

    /// An ICE restart that the viewer asked for with its new credentials (RFC 8839 §4.4.1.1.1); `ours`
    /// must be fresh. Returns our candidates as lines of SDP. `None`: there is no such viewer.
    pub fn handle_restart(
        &mut self,
        viewer: ViewerId,
        ours: &IceCredentials,
        theirs: IceCredentials,
        now: Instant,
    ) -> Option<String> {
        let entry = self.peers.get_mut(&viewer)?;
        if matches!(entry.phase, Phase::Closing(_)) {
            return None;
        }
        // A second restart before the first one has come about: its credentials were never used.
        if entry.peer.previous_ufrag().is_some() {
            self.by_ufrag.remove(&entry.ufrag);
        }
        entry.ufrag.clone_from(&ours.ufrag);
        self.by_ufrag.insert(ours.ufrag.clone(), viewer);
        self.with(viewer, |entry| entry.peer.restart(ours.clone(), theirs))?;
        self.drive(viewer, now);
        Some(self.factory.candidate_lines())
    }

    /// A packet whose first byte says STUN or DTLS. `local` is our address it arrived at.
    pub fn handle_datagram(
        &mut self,
        source: impl Into<Remote>,
        local: SocketAddr,
        packet: &[u8],
        now: Instant,
    ) -> Received {
        let route = Route::new(local, source);
        // Only requests are answered: a lite agent sends no checks, so responses are strays.
        match BindingRequest::parse(packet) {
            Some(request) => self.handle_check(route, &request, now),
            None if matches!(packet.first(), Some(20..=63)) => self.handle_dtls(route, packet, now),
            None => Received::Dropped,
        }
    }

    fn handle_check(
        &mut self,
        route: Route,
        request: &BindingRequest<'_>,
        now: Instant,
    ) -> Received {
        let viewer = request.local_ufrag().and_then(|ufrag| self.by_ufrag.get(ufrag)).copied();
        let Some(viewer) = viewer else { return Received::Dropped };
        let checked = self.with(viewer, |entry| {
            let previous = entry.peer.previous_ufrag().map(ToOwned::to_owned);
            Some((previous, entry.peer.handle_check(route, request, now)?))
        });
        let Some((previous, proven)) = checked.flatten() else { return Received::Dropped };
        let Some(entry) = self.peers.get_mut(&viewer) else { return Received::Dropped };
        if let Some(previous) = previous.filter(|_| entry.peer.previous_ufrag().is_none()) {
            self.by_ufrag.remove(&previous);
        }
        // A repeated one is answered, as the first answer may be lost. It does not show that the viewer
        // lives: consent asks for a new transaction each time (RFC 7675 §5.1), and an old one can be
        // anybody's copy.
        let is_fresh = !proven.is_repeated;
        if is_fresh {
            entry.checked_at = now;
        }
        if is_fresh && entry.follows(route, request.nominates, now) {
            self.outputs.push_back(PeersOutput::Moved { viewer, route });
        }
        self.note_path(viewer, route, proven);
        if is_fresh {
            self.note_alive(viewer, route, now);
        }
        self.drive(viewer, now);
        if is_fresh { Received::Authentic } else { Received::Accepted }
    }

    fn note_path(&mut self, viewer: ViewerId, route: Route, proven: Proven) {
        self.claim(viewer, route.remote());
        if let Some(forgotten) = proven.forgotten {
            self.forget_remote(viewer, forgotten.remote());
            self.outputs.push_back(PeersOutput::PathForgotten { viewer, route: forgotten });
        }
        let is_attached =
            self.peers.get(&viewer).is_some_and(|entry| entry.phase == Phase::Connected);
        if proven.is_new_path && is_attached {
            self.outputs.push_back(PeersOutput::PathProven { viewer, route });
        }
    }

    /// A check of this viewer came from there. Beyond the bound one gives way that proved less, or as
    /// little and is older; if there is none, it is this one.
    fn claim(&mut self, viewer: ViewerId, remote: Remote) {
        self.by_remote.insert((remote, viewer));
        if self.claimants(remote).count() <= MAX_CLAIMANTS {
            return;
        }
        let standing = |claimant: &ViewerId| {
            self.peers.get(claimant).map_or(Standing::Elsewhere, |entry| entry.standing(remote))
        };
        let worst = self
            .claimants(remote)
            .max_by_key(|claimant| (standing(claimant), *claimant != viewer, Reverse(*claimant)));
        if let Some(worst) = worst {
            self.by_remote.remove(&(remote, worst));
        }
    }

    fn claimants(&self, remote: Remote) -> impl Iterator<Item = ViewerId> {
        let everybody = (remote, ViewerId(0))..=(remote, ViewerId(u64::MAX));
        self.by_remote.range(everybody).map(|(_, viewer)| *viewer)
    }

    /// Unless another path leads there, to another address of ours.
    fn forget_remote(&mut self, viewer: ViewerId, remote: Remote) {
        let Some(entry) = self.peers.get(&viewer) else { return };
        if entry.peer.routes().all(|route| route.remote() != remote) {
            self.by_remote.remove(&(remote, viewer));
        }
    }

    /// A DTLS packet names nobody. Whoever has the keys, or waits for a hello, makes something of it.
    fn handle_dtls(&mut self, route: Route, packet: &[u8], now: Instant) -> Received {
        let claimants: Vec<ViewerId> = self.claimants(route.remote()).collect();
        let mut received = Received::Dropped;
        for viewer in claimants {
            let heard = self.with(viewer, |entry| entry.peer.handle_dtls(route, packet, now));
            if heard.is_some_and(|heard| heard != Received::Dropped) {
                received = Received::Accepted;
                self.drive(viewer, now);
            }
        }
        received
    }

    /// The viewer's own feedback came along this path, so media goes there.
    pub fn handle_moved(&mut self, viewer: ViewerId, route: Route, now: Instant) {
        if let Some(entry) = self.peers.get_mut(&viewer) {
            entry.peer.select(route);
            entry.heard_at = now;
        }
    }

    /// Starts a viewer's goodbye; `Closed` follows. Unknown viewers are ignored.
    pub fn handle_close(&mut self, viewer: ViewerId, reason: CloseReason, now: Instant) {
        let Some(entry) = self.peers.get_mut(&viewer) else { return };
        if matches!(entry.phase, Phase::Closing(_)) {
            return;
        }
        entry.phase = Phase::Closing(reason);
        entry.accepted_at = now;
        self.with(viewer, |entry| entry.peer.close());
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
                Phase::Connected if now >= entry.checked_at + CONSENT_TIMEOUT => {
                    self.handle_close(viewer, CloseReason::ConsentExpired, now);
                    continue;
                }
                Phase::Handshaking | Phase::Connected | Phase::Closing(_) => {}
            }
            self.with(viewer, |entry| entry.peer.handle_timeout(now));
            self.drive(viewer, now);
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<PeersOutput> {
        self.outputs.pop_front()
    }

    /// Lets one peer do something. A panic in there ends that peer, not the thread of a thousand: it is
    /// taken out, and what it left half done is never looked at again. `None` if it is gone.
    fn with<T>(&mut self, viewer: ViewerId, act: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let entry = self.peers.get_mut(&viewer)?;
        let done = catch_unwind(AssertUnwindSafe(|| act(entry)));
        if done.is_err() {
            tracing::error!(viewer = viewer.0, "a viewer's session panicked and is ended");
            self.remove(viewer, CloseReason::Failed);
        }
        done.ok()
    }

    /// Drains one peer and sets its next deadline.
    fn drive(&mut self, viewer: ViewerId, now: Instant) {
        let next = loop {
            match self.with(viewer, |entry| entry.peer.poll_output()) {
                None => return,
                Some(PeerOutput::Transmit { route, contents }) => {
                    self.outputs.push_back(PeersOutput::Transmit { route, contents });
                }
                Some(PeerOutput::Connected(keys)) => {
                    if let Some(entry) = self.peers.get_mut(&viewer) {
                        entry.attach(viewer, keys, now, &mut self.outputs);
                    }
                }
                Some(PeerOutput::Closed) => break None,
                Some(PeerOutput::Timeout(at)) => break Some(at),
            }
        };
        let Some(entry) = self.peers.get_mut(&viewer) else { return };
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

    fn note_alive(&mut self, viewer: ViewerId, route: Route, now: Instant) {
        let Some(entry) = self.peers.get_mut(&viewer) else { return };
        if entry.last_alive.is_none_or(|last| now >= last + ALIVE_INTERVAL) {
            entry.last_alive = Some(now);
            self.outputs.push_back(PeersOutput::Alive { viewer, at: now, route });
        }
    }

    fn remove(&mut self, viewer: ViewerId, reason: CloseReason) {
        let Some(entry) = self.peers.remove(&viewer) else { return };
        self.deadlines.remove(&(entry.deadline, viewer));
        self.by_ufrag.remove(&entry.ufrag);
        if let Some(previous) = entry.peer.previous_ufrag() {
            self.by_ufrag.remove(previous);
        }
        for route in entry.peer.routes() {
            self.by_remote.remove(&(route.remote(), viewer));
            if route.transport != Transport::Udp {
                self.outputs.push_back(PeersOutput::PathForgotten { viewer, route });
            }
        }
        self.outputs.push_back(PeersOutput::Closed { viewer, reason });
    }
}

impl Entry {
    /// At the begin of the handshake.
    fn new(peer: Peer, stream: StreamId, ufrag: &str, now: Instant) -> Self {
        Self {
            peer,
            stream,
            negotiated: Negotiated::default(),
            ufrag: ufrag.to_owned(),
            checked_at: now,
            heard_at: now,
            accepted_at: now,
            phase: Phase::Handshaking,
            deadline: now,
            last_alive: None,
        }
    }

    fn standing(&self, remote: Remote) -> Standing {
        let is_there = self.peer.selected_route().is_some_and(|route| route.remote() == remote);
        match self.phase {
            Phase::Connected | Phase::Closing(_) if is_there => Standing::Proven,
            Phase::Handshaking => Standing::Handshaking,
            Phase::Connected | Phase::Closing(_) => Standing::Elsewhere,
        }
    }

    /// When this table itself must look at the peer, whatever str0m says.
    fn own_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Handshaking => Some(self.accepted_at + HANDSHAKE_TIMEOUT),
            Phase::Closing(_) => Some(self.accepted_at + CLOSE_TIMEOUT),
            Phase::Connected => Some(self.checked_at + CONSENT_TIMEOUT),
        }
    }

    fn attach(
        &mut self,
        viewer: ViewerId,
        keys: SessionKeys,
        now: Instant,
        outputs: &mut VecDeque<PeersOutput>,
    ) {
        let (Phase::Handshaking, Some(route)) = (self.phase, self.peer.selected_route()) else {
            return;
        };
        self.phase = Phase::Connected;
        self.heard_at = now;
        outputs.push_back(PeersOutput::Attach(Box::new(Attach {
            viewer,
            stream: self.stream,
            route,
            keys,
            negotiated: self.negotiated.clone(),
            handshake: now - self.accepted_at,
        })));
        // Those that were checked before there was anybody to tell.
        let others = self.peer.routes().filter(|other| *other != route);
        outputs.extend(others.map(|route| PeersOutput::PathProven { viewer, route }));
    }

    /// A check along `route`. True when media is to go there without waiting for feedback, which a
    /// viewer may not send before it gets media: the path in use is silent, and this one nominated.
    fn follows(&mut self, route: Route, nominates: bool, now: Instant) -> bool {
        if self.peer.selected_route() == Some(route) {
            self.heard_at = now;
            return false;
        }
        let is_abandoned = self.phase == Phase::Connected
            && now.saturating_duration_since(self.heard_at) >= PATH_SILENCE;
        if !is_abandoned || !nominates {
            return false;
        }
        self.peer.select(route);
        self.heard_at = now;
        true
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

    /// An authentic check that nominates; the number makes it another one.
    fn check(number: u32) -> Vec<u8> {
        check_of("Aserver:viewer00", number, &credentials())
    }

    /// The username is padded to 16 bytes.
    fn check_of(username: &str, number: u32, credentials: &IceCredentials) -> Vec<u8> {
        let mut packet = vec![0, 1, 0, 44, 0x21, 0x12, 0xa4, 0x42];
        packet.extend([7; 8]);
        packet.extend(number.to_be_bytes());
        packet.extend([0, 6, 0, username.len() as u8]);
        packet.extend(username.as_bytes());
        packet.resize(40, 0);
        packet.extend([0, 8, 0, 20]);
        packet.extend([0; 20]);
        BindingRequest::parse(&packet).unwrap().nominated(&credentials.password)
    }

    #[test]
    fn a_viewer_that_comes_from_ever_new_addresses_takes_no_more_room() {
        let (mut table, now) = table();
        for number in 0..3_000 {
            table.handle_datagram(address(number), address(1), &check(number), now);
            while table.poll_output().is_some() {}
            assert!(table.by_remote.len() <= 16);
        }
        table.remove(VIEWER, CloseReason::Asked);
        while table.poll_output().is_some() {}
        assert!(table.is_empty());
    }

    /// A viewer at `address(9)`, as if its DTLS were done.
    fn connected() -> (PeerTable, Instant) {
        let (mut table, now) = table();
        table.handle_datagram(address(9), address(1), &check(0), now);
        table.peers.get_mut(&VIEWER).unwrap().phase = Phase::Connected;
        while table.poll_output().is_some() {}
        (table, now)
    }

    fn moves(table: &mut PeerTable) -> Vec<Route> {
        let outputs = std::iter::from_fn(|| table.poll_output());
        let moved = outputs.filter_map(|output| match output {
            PeersOutput::Moved { route, .. } => Some(route),
            PeersOutput::Transmit { .. }
            | PeersOutput::Attach(_)
            | PeersOutput::PathProven { .. }
            | PeersOutput::PathForgotten { .. }
            | PeersOutput::Alive { .. }
            | PeersOutput::Closed { .. } => None,
        });
        moved.collect()
    }

    #[test]
    fn a_check_alone_moves_media_only_from_a_path_that_is_silent() {
        let (mut table, start) = connected();
        let from_elsewhere = |table: &mut PeerTable, number, now| {
            table.handle_datagram(address(10), address(2), &check(number), now);
            moves(table)
        };
        assert_eq!(from_elsewhere(&mut table, 1, start), []);
        let later = start + PATH_SILENCE;
        table.handle_datagram(address(9), address(1), &check(2), later);
        assert_eq!(from_elsewhere(&mut table, 3, later), [], "its own path is in use");
        let silent = later + PATH_SILENCE;
        let there = Route::new(address(2), address(10));
        assert_eq!(from_elsewhere(&mut table, 4, silent), [there]);
        assert_eq!(table.peers[&VIEWER].peer.selected_route(), Some(there));
    }

    #[test]
    fn a_viewer_that_does_not_check_any_more_is_sent_nothing_more() {
        let (mut table, start) = connected();
        let last = start + Duration::from_secs(5);
        table.handle_datagram(address(9), address(1), &check(1), last);
        let closed = |table: &mut PeerTable, now| {
            table.handle_timeout(now);
            std::iter::from_fn(|| table.poll_output()).any(|output| {
                matches!(output, PeersOutput::Closed { reason: CloseReason::ConsentExpired, .. })
            })
        };
        assert!(!closed(&mut table, last + CONSENT_TIMEOUT - Duration::from_millis(1)));
        assert!(!closed(&mut table, last + CONSENT_TIMEOUT), "it is told first");
        assert!(closed(&mut table, last + CONSENT_TIMEOUT + CLOSE_TIMEOUT));
        assert!(table.is_empty());
    }

    #[test]
    fn copies_of_a_check_do_not_keep_media_flowing() {
        let (mut table, start) = connected();
        let last = start + Duration::from_secs(5);
        let arrive = |table: &mut PeerTable, now| {
            table.handle_datagram(address(9), address(1), &check(1), now)
        };
        assert_eq!(arrive(&mut table, last), Received::Authentic);
        while table.poll_output().is_some() {}
        let mut now = last;
        while now < last + CONSENT_TIMEOUT {
            now += Duration::from_secs(2);
            assert_eq!(arrive(&mut table, now), Received::Accepted);
            let outputs: Vec<_> = std::iter::from_fn(|| table.poll_output()).collect();
            let is_answer = |output: &PeersOutput| matches!(output, PeersOutput::Transmit { .. });
            assert!(!outputs.is_empty() && outputs.iter().all(is_answer), "{outputs:?}");
        }
        table.handle_timeout(now + Duration::from_millis(1));
        assert_eq!(table.peers[&VIEWER].phase, Phase::Closing(CloseReason::ConsentExpired));
    }

    #[test]
    fn feedback_counts_along_every_path_that_was_checked_before_the_handshake_ended() {
        let (mut table, now) = table();
        for (number, from) in [(0, 9), (1, 10)] {
            table.handle_datagram(address(from), address(1), &check(number), now);
        }
        while table.poll_output().is_some() {}
        let profile = crate::srtp::SrtpProfile::AeadAes128Gcm;
        let keys = SessionKeys { profile, material: vec![0; profile.keying_material_len()] };
        let entry = table.peers.get_mut(&VIEWER).unwrap();
        entry.attach(VIEWER, keys, now, &mut table.outputs);
        let outputs: Vec<_> = std::iter::from_fn(|| table.poll_output()).collect();
        let [PeersOutput::Attach(attach), PeersOutput::PathProven { route, .. }] = &outputs[..]
        else {
            panic!("{outputs:?}");
        };
        assert_eq!(attach.route.destination, address(9));
        assert_eq!(route.destination, address(10));
    }

    #[test]
    fn a_panic_ends_the_peer_that_it_happened_in_and_no_other() {
        const OTHER: ViewerId = ViewerId(2);
        let (mut table, now) = connected();
        let other = IceCredentials { ufrag: "Another".to_owned(), ..credentials() };
        table.handle_offer(OTHER, StreamId(1), OFFER, &other, now).unwrap();
        while table.poll_output().is_some() {}
        let done: Option<()> = table.with(VIEWER, |_| panic!("this panic belongs to the test"));
        assert!(done.is_none() && table.with(VIEWER, |_| ()).is_none());
        let outputs: Vec<_> = std::iter::from_fn(|| table.poll_output()).collect();
        let [PeersOutput::Closed { viewer: VIEWER, reason: CloseReason::Failed }] = outputs[..]
        else {
            panic!("{outputs:?}");
        };
        assert_eq!(table.viewers(), [OTHER]);
        table.remove(OTHER, CloseReason::Asked);
        while table.poll_output().is_some() {}
        assert!(table.is_empty());
    }

    #[test]
    fn after_a_restart_the_new_user_fragment_is_good_and_the_old_one_not_for_long() {
        let (mut table, now) = connected();
        let ours = IceCredentials { ufrag: "Banew".to_owned(), password: "x".repeat(24) };
        let theirs = IceCredentials { ufrag: "viewer01".to_owned(), password: "y".repeat(24) };
        let lines = table.handle_restart(VIEWER, &ours, theirs.clone(), now).unwrap();
        assert!(lines.contains(" 10.0.0.1 4000 typ host"), "{lines}");
        let arrive = |table: &mut PeerTable, packet: &[u8]| {
            table.handle_datagram(address(9), address(1), packet, now)
        };
        assert_eq!(arrive(&mut table, &check(1)), Received::Authentic);
        assert_eq!(arrive(&mut table, &check_of("Banew:viewer01", 2, &ours)), Received::Authentic);
        assert_eq!(arrive(&mut table, &check(3)), Received::Dropped);
        assert_eq!(table.by_ufrag.len(), 1);
        assert!(table.handle_restart(ViewerId(2), &ours, theirs, now).is_none());
    }

    #[test]
    fn what_a_viewer_uses_is_good_until_it_uses_one_of_its_restarts() {
        let (mut table, now) = connected();
        let theirs = IceCredentials { ufrag: "viewer01".to_owned(), password: "y".repeat(24) };
        let [first, second] = ["Banew", "Bnewer"]
            .map(|ufrag| IceCredentials { ufrag: ufrag.to_owned(), password: ufrag.repeat(5) });
        for ours in [&first, &second] {
            table.handle_restart(VIEWER, ours, theirs.clone(), now).unwrap();
        }
        let mut arrive = |packet: &[u8]| table.handle_datagram(address(9), address(1), packet, now);
        assert_eq!(arrive(&check(1)), Received::Authentic, "the answers may be lost");
        assert_eq!(arrive(&check_of("Banew:viewer01", 2, &first)), Received::Dropped);
        assert_eq!(arrive(&check_of("Bnewer:viewer0", 3, &second)), Received::Authentic);
        assert_eq!(arrive(&check(4)), Received::Dropped);
        assert_eq!(table.by_ufrag.len(), 1);
    }
}
