//! All publishers of one thread: routing, time, and what they ask to be done.
//!
//! Sans-IO like [`crate::peers`]: datagrams and offers in, [`PublishersOutput`] out. Frames of
//! publishers whom nobody wants are not made.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::peer::publisher::{
    Demand, PublishError, Publisher, PublisherFactory, PublisherFigures, PublisherOutput,
    SoundWishes,
};
use crate::peer::{HostCandidate, IceCredentials, Received};
use crate::publish::TrackOutput;
use crate::route::{Remote, Route};
use crate::stun::BindingRequest;

/// How long ICE and DTLS may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a connected publisher may be silent: neither a check nor a packet of media. Checks of
/// consent come every 4 to 6 s (RFC 7675 §5.1), but media every few milliseconds.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connected voice may be silent: neither a check nor a report nor sound, of which there is
/// none while nobody speaks (DTX). Two checks of consent at the slowest fall into it; its listeners know
/// within 10 s that it is over.
pub const VOICE_SILENCE_TIMEOUT: Duration = Duration::from_secs(8);

/// How long after its last packet a publisher holds its place against another one with the same key:
/// an encoder that was killed and started anew gets in within two seconds.
pub const PRESENCE: Duration = Duration::from_secs(2);

/// How long a goodbye may take to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// A publisher inside this process: one WHIP session, or one voice. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublisherId(pub u64);

/// Why a publisher's session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublisherEnd {
    /// It said goodbye, or its connection broke.
    Peer,
    /// ICE or DTLS did not finish within [`HANDSHAKE_TIMEOUT`], or failed.
    NeverConnected,
    /// Nothing came for [`SILENCE_TIMEOUT`], or [`VOICE_SILENCE_TIMEOUT`].
    Silent,
    /// We were asked to end it.
    Asked,
    /// What it sent made something in here panic.
    Failed,
}

/// What is to be done for publishers.
#[derive(Debug)]
pub enum PublishersOutput {
    /// Send STUN, DTLS or SRTCP.
    Transmit {
        /// Where from and where to.
        route: Route,
        /// The packet.
        contents: Vec<u8>,
    },
    /// An address is held to be a publisher's, or no longer: what comes from it belongs here, or no more.
    Address {
        /// The publisher's end.
        remote: Remote,
        /// How sure it is.
        claim: Claim,
    },
    /// DTLS is done.
    Connected(PublisherId),
    /// What came of its packets.
    Track(PublisherId, TrackOutput),
    /// The session is over. Comes exactly once for every accepted publisher.
    Closed {
        /// Whose session.
        publisher: PublisherId,
        /// What ended it.
        reason: PublisherEnd,
    },
}

/// Whether an address is a publisher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A check came from there. Its source may be forged, so that the newest one counts.
    Taken,
    /// DTLS was done there: it stays the publisher's, whatever checks come from there.
    Proven,
    /// No longer.
    Released,
}

/// What a publisher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Camera,
    Voice,
}

impl Kind {
    fn silence_max(self) -> Duration {
        match self {
            Self::Camera => SILENCE_TIMEOUT,
            Self::Voice => VOICE_SILENCE_TIMEOUT,
        }
    }
}

/// What a table counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableFigures {
    /// Of cameras.
    pub cameras: GroupFigures,
    /// Of those who speak.
    pub voices: GroupFigures,
}

/// Of publishers of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupFigures {
    /// To whom DTLS is done, at present.
    pub connected: u64,
    /// Counters since the start.
    pub sum: PublisherFigures,
}

impl std::ops::Add for TableFigures {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cameras: self.cameras + other.cameras, voices: self.voices + other.voices }
    }
}

impl std::ops::Add for GroupFigures {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { connected: self.connected + other.connected, sum: self.sum + other.sum }
    }
}

impl TableFigures {
    fn of(&mut self, kind: Kind) -> &mut GroupFigures {
        match kind {
            Kind::Camera => &mut self.cameras,
            Kind::Voice => &mut self.voices,
        }
    }
}

struct Entry {
    publisher: Publisher,
    kind: Kind,
    ufrag: String,
    since: Instant,
    phase: Phase,
    /// Where its DTLS was done. Where it goes afterwards is known from checks alone.
    proven: Option<Remote>,
    deadline: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshaking,
    Connected,
    /// The goodbye is leaving.
    Closing(PublisherEnd),
}

/// All publishers of one thread. Its size is bounded by the stream keys, of which each has one session,
/// and by the clients of the voice relay.
pub struct PublisherTable {
    factory: PublisherFactory,
    /// Boxed: an entry takes some 15 KB.
    entries: HashMap<PublisherId, Box<Entry>>,
    by_ufrag: HashMap<String, PublisherId>,
    by_remote: HashMap<Remote, PublisherId>,
    deadlines: BTreeSet<(Instant, PublisherId)>,
    /// Of those who are gone.
    past: TableFigures,
    outputs: VecDeque<PublishersOutput>,
}

impl PublisherTable {
    /// An empty table whose publishers share the factory.
    pub fn new(factory: PublisherFactory) -> Self {
        Self {
            factory,
            entries: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_remote: HashMap::new(),
            deadlines: BTreeSet::new(),
            past: TableFigures::default(),
            outputs: VecDeque::new(),
        }
    }

    /// What is announced to publishers from here on, in order of preference.
    pub fn set_candidates(&mut self, candidates: Vec<HostCandidate>) {
        self.factory.set_candidates(candidates);
    }

    /// Everybody who is not yet gone, in no order.
    pub fn publishers(&self) -> Vec<PublisherId> {
        self.entries.keys().copied().collect()
    }

    /// Whether nobody is here and nothing is remembered of anybody.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.by_ufrag.is_empty()
            && self.by_remote.is_empty()
            && self.deadlines.is_empty()
    }

    /// What all publishers came to, those who are gone too.
    pub fn figures(&self) -> TableFigures {
        let mut figures = self.past;
        for entry in self.entries.values() {
            let of_kind = figures.of(entry.kind);
            of_kind.connected += u64::from(entry.phase == Phase::Connected);
            of_kind.sum = of_kind.sum + entry.publisher.figures();
        }
        figures
    }

    /// Whether a publisher holds its key: media or a check came within [`PRESENCE`], or its
    /// handshake began within it.
    pub fn is_present(&self, publisher: PublisherId, now: Instant) -> bool {
        self.entries.get(&publisher).is_some_and(|entry| {
            let heard = entry.publisher.heard().unwrap_or(entry.since);
            !matches!(entry.phase, Phase::Closing(_)) && now < heard + PRESENCE
        })
    }

    /// Answers an offer. `credentials` must be fresh: the user fragment names the session.
    pub fn handle_offer(
        &mut self,
        id: PublisherId,
        offer: &str,
        credentials: &IceCredentials,
        now: Instant,
    ) -> Result<String, PublishError> {
        let (publisher, answer) = self.factory.answer(offer, credentials, now)?;
        self.insert(id, Kind::Camera, publisher, &credentials.ufrag, now);
        Ok(answer)
    }

    /// Answers the offer of somebody who speaks; the rest as in [`Self::handle_offer`].
    pub fn handle_sound_offer(
        &mut self,
        id: PublisherId,
        offer: &str,
        credentials: &IceCredentials,
        wishes: &SoundWishes,
        now: Instant,
    ) -> Result<String, PublishError> {
        let (publisher, answer) = self.factory.answer_sound(offer, credentials, wishes, now)?;
        self.insert(id, Kind::Voice, publisher, &credentials.ufrag, now);
        Ok(answer)
    }

    fn insert(
        &mut self,
        id: PublisherId,
        kind: Kind,
        publisher: Publisher,
        ufrag: &str,
        now: Instant,
    ) {
        let entry = Entry {
            publisher,
            kind,
            ufrag: ufrag.to_owned(),
            since: now,
            phase: Phase::Handshaking,
            proven: None,
            deadline: now,
        };
        self.deadlines.insert((now, id));
        self.by_ufrag.insert(ufrag.to_owned(), id);
        self.entries.insert(id, Box::new(entry));
        self.drive(id, now);
    }

    /// An ICE restart that the publisher asked for with its new credentials; `ours` must be fresh.
    /// Returns our candidates as lines of SDP. `None`: there is no such publisher.
    pub fn handle_restart(
        &mut self,
        id: PublisherId,
        ours: &IceCredentials,
        theirs: IceCredentials,
        now: Instant,
    ) -> Option<String> {
        let entry = self.entries.get_mut(&id)?;
        if matches!(entry.phase, Phase::Closing(_)) {
            return None;
        }
        // A second restart before the first one has come about: its credentials were never used.
        if entry.publisher.previous_ufrag().is_some() {
            self.by_ufrag.remove(&entry.ufrag);
        }
        entry.ufrag.clone_from(&ours.ufrag);
        self.by_ufrag.insert(ours.ufrag.clone(), id);
        self.contained(id, |publisher| publisher.restart(ours.clone(), theirs))?;
        self.drive(id, now);
        Some(self.factory.candidate_lines())
    }

    /// A datagram for a publisher. `local` is our address that it arrived at.
    pub fn handle_datagram(
        &mut self,
        source: impl Into<Remote>,
        local: SocketAddr,
        packet: &[u8],
        now: Instant,
    ) -> Received {
        let route = Route::new(local, source);
        if let Some(request) = BindingRequest::parse(packet) {
            return self.handle_check(route, &request, now);
        }
        // A lite agent sends no checks, so that other STUN is a stray.
        if packet.first().is_none_or(|first| *first < 4) {
            return Received::Dropped;
        }
        let Some(id) = self.by_remote.get(&route.remote()).copied() else {
            return Received::Dropped;
        };
        let received =
            self.contained(id, |publisher| publisher.handle_datagram(route, packet, now));
        let received = received.unwrap_or(Received::Dropped);
        if received != Received::Dropped {
            self.drive(id, now);
        }
        received
    }

    fn handle_check(
        &mut self,
        route: Route,
        request: &BindingRequest<'_>,
        now: Instant,
    ) -> Received {
        let id = request.local_ufrag().and_then(|ufrag| self.by_ufrag.get(ufrag)).copied();
        let Some(id) = id else { return Received::Dropped };
        let checked = self.contained(id, |publisher| {
            let previous = publisher.previous_ufrag().map(ToOwned::to_owned);
            Some((previous, publisher.handle_check(route, request, now)?))
        });
        let Some((previous, proven)) = checked.flatten() else { return Received::Dropped };
        let Some(entry) = self.entries.get(&id) else { return Received::Dropped };
        if let Some(previous) = previous.filter(|_| entry.publisher.previous_ufrag().is_none()) {
            self.by_ufrag.remove(&previous);
        }
        self.claim(id, route.remote(), proven.forgotten.map(|path| path.remote()));
        self.drive(id, now);
        Received::Authentic
    }

    /// Somebody begins or ceases to want what a publisher sends.
    pub fn set_demand(&mut self, id: PublisherId, demand: Demand, now: Instant) {
        self.with(id, now, |publisher| publisher.set_demand(demand));
    }

    /// Frames were lost behind the table.
    pub fn handle_overflow(&mut self, id: PublisherId, now: Instant) {
        self.with(id, now, Publisher::handle_overflow);
    }

    /// Somebody cannot decode.
    pub fn want_keyframe(&mut self, id: PublisherId, now: Instant) {
        self.with(id, now, Publisher::want_keyframe);
    }

    /// Starts a publisher's goodbye; `Closed` follows. Unknown ones are ignored.
    pub fn handle_close(&mut self, id: PublisherId, reason: PublisherEnd, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if matches!(entry.phase, Phase::Closing(_)) {
            return;
        }
        entry.phase = Phase::Closing(reason);
        entry.since = now;
        self.with(id, now, Publisher::close);
    }

    /// The next moment at which [`Self::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            let Some(entry) = self.entries.get_mut(&id) else {
                self.deadlines.pop_first();
                continue;
            };
            if entry.own_deadline() <= now {
                let reason = match entry.phase {
                    Phase::Handshaking => PublisherEnd::NeverConnected,
                    Phase::Connected => PublisherEnd::Silent,
                    Phase::Closing(reason) => reason,
                };
                self.remove(id, reason);
                continue;
            }
            self.with(id, now, |publisher| publisher.handle_timeout(now));
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<PublishersOutput> {
        self.outputs.pop_front()
    }

    fn with(&mut self, id: PublisherId, now: Instant, act: impl FnOnce(&mut Publisher)) {
        if self.contained(id, act).is_some() {
            self.drive(id, now);
        }
    }

    /// Lets one publisher do something. A panic in there ends that one, not the thread of all: it is
    /// taken out, and what it left half done is never looked at again. `None` if it is gone.
    fn contained<T>(
        &mut self,
        id: PublisherId,
        act: impl FnOnce(&mut Publisher) -> T,
    ) -> Option<T> {
        let entry = self.entries.get_mut(&id)?;
        let done = catch_unwind(AssertUnwindSafe(|| act(&mut entry.publisher)));
        if done.is_err() {
            tracing::error!(publisher = id.0, "a publisher's session panicked and is ended");
            self.remove(id, PublisherEnd::Failed);
        }
        done.ok()
    }

    /// Remembers whose an address is. Who did DTLS there keeps it as long as he lives: somebody else's
    /// check from there has a forged source. Until then the newest check counts, and is told of each
    /// time, since another thread may have been told of a forged one.
    fn claim(&mut self, id: PublisherId, remote: Remote, forgotten: Option<Remote>) {
        if let Some(forgotten) = forgotten {
            let is_left =
                |entry: &Entry| entry.publisher.routes().all(|route| route.remote() != forgotten);
            if self.entries.get(&id).is_some_and(|entry| is_left(entry)) {
                self.release(id, forgotten);
            }
        }
        let owner = self.by_remote.get(&remote).and_then(|owner| self.entries.get(owner));
        if owner.is_none_or(|owner| owner.proven != Some(remote)) {
            self.by_remote.insert(remote, id);
            self.outputs.push_back(PublishersOutput::Address { remote, claim: Claim::Taken });
        }
    }

    fn release(&mut self, id: PublisherId, remote: Remote) {
        if self.by_remote.get(&remote) == Some(&id) {
            self.by_remote.remove(&remote);
            self.outputs.push_back(PublishersOutput::Address { remote, claim: Claim::Released });
        }
    }

    /// Drains one publisher and sets its next deadline.
    fn drive(&mut self, id: PublisherId, now: Instant) {
        let next = loop {
            match self.contained(id, |publisher| publisher.poll_output(now)) {
                None => return,
                Some(PublisherOutput::Transmit { route, contents }) => {
                    self.outputs.push_back(PublishersOutput::Transmit { route, contents });
                }
                Some(PublisherOutput::Connected) => self.note_connected(id),
                Some(PublisherOutput::Track(output)) => {
                    self.outputs.push_back(PublishersOutput::Track(id, output));
                }
                Some(PublisherOutput::Closed) => break None,
                Some(PublisherOutput::Timeout(at)) => break Some(at),
            }
        };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(next) = next else {
            let reason = match entry.phase {
                Phase::Closing(reason) => reason,
                Phase::Connected => PublisherEnd::Peer,
                Phase::Handshaking => PublisherEnd::NeverConnected,
            };
            self.remove(id, reason);
            return;
        };
        self.deadlines.remove(&(entry.deadline, id));
        // A deadline in the past would be driven for ever within one instant.
        entry.deadline = entry.own_deadline().min(next).max(now + Duration::from_millis(1));
        self.deadlines.insert((entry.deadline, id));
    }

    fn note_connected(&mut self, id: PublisherId) {
        let handshaking = self.entries.get_mut(&id).filter(|e| e.phase == Phase::Handshaking);
        if let Some(entry) = handshaking {
            entry.phase = Phase::Connected;
            if let Some(route) = entry.publisher.selected_route() {
                let remote = route.remote();
                entry.proven = Some(remote);
                self.by_remote.insert(remote, id);
                self.outputs.push_back(PublishersOutput::Address { remote, claim: Claim::Proven });
            }
            self.outputs.push_back(PublishersOutput::Connected(id));
        }
    }

    fn remove(&mut self, id: PublisherId, reason: PublisherEnd) {
        let Some(entry) = self.entries.remove(&id) else { return };
        let past = self.past.of(entry.kind);
        past.sum = past.sum + entry.publisher.figures();
        self.deadlines.remove(&(entry.deadline, id));
        self.by_ufrag.remove(&entry.ufrag);
        if let Some(previous) = entry.publisher.previous_ufrag() {
            self.by_ufrag.remove(previous);
        }
        for route in entry.publisher.routes() {
            self.release(id, route.remote());
        }
        self.outputs.push_back(PublishersOutput::Closed { publisher: id, reason });
    }
}

impl Entry {
    /// When it is over whatever str0m says.
    fn own_deadline(&self) -> Instant {
        match self.phase {
            Phase::Handshaking => self.since + HANDSHAKE_TIMEOUT,
            Phase::Connected => {
                self.publisher.heard().unwrap_or(self.since) + self.kind.silence_max()
            }
            Phase::Closing(_) => self.since + CLOSE_TIMEOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two publishers of which nothing came yet.
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn two() -> (PublisherTable, [PublisherId; 2], Instant) {
        const OFFER: &str = include_str!("../../../e2e/sdp/chromium.sdp");
        let offer = OFFER.replace("a=recvonly", "a=sendonly");
        let now = Instant::now();
        let mut table = PublisherTable::new(PublisherFactory::new(Vec::new()).unwrap());
        let both = [PublisherId(1), PublisherId(2)];
        for id in both {
            table.handle_offer(id, &offer, &credentials(id), now).unwrap();
        }
        while table.poll_output().is_some() {}
        (table, both, now)
    }

    fn credentials(id: PublisherId) -> IceCredentials {
        IceCredentials { ufrag: format!("gserver{}", id.0), password: "x".repeat(24) }
    }

    /// An authentic check; the number makes it another one.
    fn check(id: PublisherId, number: u8) -> Vec<u8> {
        let IceCredentials { ufrag, password } = credentials(id);
        let username = format!("{ufrag}:encoder");
        let mut packet = vec![0, 1, 0, 44, 0x21, 0x12, 0xa4, 0x42];
        packet.extend([number; 12]);
        packet.extend([0, 6, 0, username.len() as u8]);
        packet.extend(username.as_bytes());
        packet.extend([0, 8, 0, 20]);
        packet.extend([0; 20]);
        BindingRequest::parse(&packet).unwrap().nominated(&password)
    }

    #[test]
    fn a_check_takes_an_address_only_from_who_proved_no_more() {
        let (mut table, [forger, owner], now) = two();
        let [ours, there] = [1, 2].map(|host| SocketAddr::from(([10, 0, 0, host], 4_000)));
        let arrive = |table: &mut PublisherTable, packet: &[u8]| {
            assert_eq!(table.handle_datagram(there, ours, packet, now), Received::Authentic);
            let outputs = std::iter::from_fn(|| table.poll_output());
            let told = outputs.filter(|o| matches!(o, PublishersOutput::Address { .. })).count();
            (table.by_remote[&Remote::from(there)], told)
        };
        assert_eq!(arrive(&mut table, &check(forger, 1)), (forger, 1));
        assert_eq!(arrive(&mut table, &check(owner, 2)), (owner, 1), "he is not kept out");
        assert_eq!(arrive(&mut table, &check(owner, 3)), (owner, 1), "another thread may not know");
        table.note_connected(owner);
        let proven = std::iter::from_fn(|| table.poll_output())
            .any(|output| matches!(output, PublishersOutput::Address { claim: Claim::Proven, .. }));
        assert!(proven);
        assert_eq!(arrive(&mut table, &check(forger, 4)), (owner, 0));
        table.remove(forger, PublisherEnd::Asked);
        assert_eq!(table.by_remote.len(), 1, "what goes with the forger was not his");
    }

    #[test]
    fn a_panic_ends_the_publisher_that_it_happened_in_and_no_other() {
        let (mut table, [failing, other], now) = two();
        table.with(failing, now, |_| panic!("this panic belongs to the test"));
        let outputs: Vec<_> = std::iter::from_fn(|| table.poll_output()).collect();
        let [PublishersOutput::Closed { publisher, reason: PublisherEnd::Failed }] = outputs[..]
        else {
            panic!("{outputs:?}");
        };
        assert_eq!((publisher, table.publishers()), (failing, vec![other]));
        table.remove(other, PublisherEnd::Asked);
        while table.poll_output().is_some() {}
        assert!(table.is_empty());
    }
}
