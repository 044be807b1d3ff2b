//! One viewer in the table: how far it is, until when, and which of its paths is in use.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Attach, CONSENT_TIMEOUT, CloseReason, HANDSHAKE_TIMEOUT, PeersOutput};
use crate::frame::{StreamId, ViewerId};
use crate::negotiated::Negotiated;
use crate::peer::{Peer, SessionKeys};
use crate::route::{Remote, Route};

/// A path along which no check came for so long is given up when the viewer nominates another.
/// Consent checks come every 5 s ± 20 % (RFC 7675 §5.1), so one and a half are missing.
pub(super) const PATH_SILENCE: Duration = Duration::from_secs(9);

/// How long a goodbye may take to leave: close_notify is one datagram, sent at once.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

pub(super) struct Entry {
    pub(super) peer: Peer,
    pub(super) stream: StreamId,
    pub(super) negotiated: Negotiated,
    pub(super) ufrag: String,
    /// When the newest authentic check came, whichever way.
    pub(super) checked_at: Instant,
    /// When the newest one came along the path that is in use.
    pub(super) heard_at: Instant,
    pub(super) accepted_at: Instant,
    pub(super) phase: Phase,
    pub(super) deadline: Instant,
    pub(super) last_alive: Option<Instant>,
}

/// What is known of who sent a check from an address, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Its DTLS was done there, and its media goes there.
    Proven,
    /// Its DTLS may come from there.
    Handshaking,
    /// It has another address, and sent a check.
    Elsewhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Handshaking,
    Connected,
    /// The goodbye is leaving.
    Closing(CloseReason),
}

impl Entry {
    /// At the begin of the handshake.
    pub(super) fn new(peer: Peer, stream: StreamId, ufrag: &str, now: Instant) -> Self {
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

    pub(super) fn standing(&self, remote: Remote) -> Standing {
        let is_there = self.peer.selected_route().is_some_and(|route| route.remote() == remote);
        match self.phase {
            Phase::Connected | Phase::Closing(_) if is_there => Standing::Proven,
            Phase::Handshaking => Standing::Handshaking,
            Phase::Connected | Phase::Closing(_) => Standing::Elsewhere,
        }
    }

    /// When this table itself must look at the peer, whatever str0m says.
    pub(super) fn own_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Handshaking => Some(self.accepted_at + HANDSHAKE_TIMEOUT),
            Phase::Closing(_) => Some(self.accepted_at + CLOSE_TIMEOUT),
            Phase::Connected => Some(self.checked_at + CONSENT_TIMEOUT),
        }
    }

    pub(super) fn attach(
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
    pub(super) fn follows(&mut self, route: Route, nominates: bool, now: Instant) -> bool {
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
