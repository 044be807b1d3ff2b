//! All peer connections of one handshake thread: routing, time, and what they ask to be done.
//!
//! Sans-IO: datagrams and offers in, [`PeersOutput`] out. It sends no media; a connected viewer is
//! handed to the fan-out with [`PeersOutput::Attach`], and only STUN and DTLS stay here.

mod entry;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use self::entry::{CLOSE_TIMEOUT, Entry, Phase, Standing};
use crate::frame::{StreamId, ViewerId};
use crate::negotiated::Negotiated;
use crate::peer::{
    Answer, AnswerError, HostCandidate, IceCredentials, OfferError, PeerFactory, PeerOutput,
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

/// Viewers that claim an address by checks, at most: each is asked whether a DTLS packet is its own. One
/// address has one viewer, unless somebody sends checks with a forged source.
const MAX_CLAIMANTS: usize = 4;

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

#[cfg(test)]
mod tests;
