//! The life of a session: one reservation and the peer that uses it.

use std::time::Duration;

use control::{Lease, Reservation, Timestamp};
use media::{CodecSet, StreamId, ViewerId};

use crate::adapt::{Adaptation, SwitchReason};

/// After a switch that failed the same one is not tried again for so long; each further failure
/// doubles it. A camera that was restarted is back within half a minute.
const SWITCH_WAIT_FIRST: Duration = Duration::from_secs(10);
/// The longest wait between two tries.
const SWITCH_WAIT_MAX: Duration = Duration::from_secs(300);

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// Granted; no peer.
    Reserved,
    /// A peer's offer was answered; its connection is under way.
    Negotiated,
    /// The peer is connected.
    Connected,
    /// Over. The reservation cannot be used any more.
    Ended,
}

/// What happens to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SessionEvent {
    /// A peer's offer was answered; an earlier peer gives way to it.
    Accepted,
    /// The peer's DTLS is done.
    Connected,
    /// The peer's connection did not come about. The client may offer again.
    PeerFailed,
    /// The peer was connected and went, or fell silent.
    PeerLeft,
    /// The lease ended.
    LeaseEnded,
}

impl SessionState {
    /// The transition table.
    pub(crate) const fn on(self, event: SessionEvent) -> Self {
        use SessionEvent as On;
        match self {
            Self::Reserved => match event {
                On::Accepted => Self::Negotiated,
                On::LeaseEnded => Self::Ended,
                On::Connected | On::PeerFailed | On::PeerLeft => self,
            },
            Self::Negotiated => match event {
                On::Connected => Self::Connected,
                On::PeerFailed => Self::Reserved,
                On::PeerLeft | On::LeaseEnded => Self::Ended,
                On::Accepted => self,
            },
            Self::Connected => match event {
                On::Accepted => Self::Negotiated,
                On::PeerFailed => Self::Reserved,
                On::PeerLeft | On::LeaseEnded => Self::Ended,
                On::Connected => self,
            },
            Self::Ended => match event {
                On::Accepted | On::Connected | On::PeerFailed => self,
                On::PeerLeft | On::LeaseEnded => self,
            },
        }
    }
}

/// One session, as the engine keeps it. As many as leases.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) reservation: Reservation,
    pub(crate) stream: StreamId,
    pub(crate) state: SessionState,
    /// The peer, from its answered offer to its end.
    pub(crate) viewer: Option<ViewerId>,
    /// When the lease runs out, as last heard from the ledger.
    pub(crate) expires_at: Timestamp,
    /// What the peer takes; everything, as long as it has not told.
    pub(crate) codecs: CodecSet,
    /// The peer reads frames inside this process: it stays on the stream that it asked for.
    pub(crate) is_reader: bool,
    /// Which rendition suits it.
    pub(crate) adaptation: Adaptation,
    /// Where the media plane was last told to bring it, until it says how that went.
    pub(crate) switch: Option<Switch>,
    /// It would rather watch a stream that does not work: that one is tried again.
    pub(crate) waits: bool,
    /// It watches another stream than the one that suits it, since that one cannot be played.
    pub(crate) has_strayed: bool,
    /// How often it went from one stream to another.
    pub(crate) switches: u32,
    /// When a switch may be tried after one that failed.
    pub(crate) retry_at: Timestamp,
    retry_wait: Duration,
}

/// Where a session goes, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Switch {
    pub(crate) to: StreamId,
    pub(crate) reason: SwitchReason,
}

impl Session {
    /// One without a peer.
    pub(crate) fn new(lease: &Lease, stream: StreamId) -> Self {
        let reservation = lease.reservation.clone();
        Self {
            stream,
            state: SessionState::Reserved,
            viewer: None,
            expires_at: lease.expires_at,
            codecs: CodecSet::ALL,
            is_reader: false,
            adaptation: Adaptation::new(reservation.quality),
            reservation,
            switch: None,
            waits: false,
            has_strayed: false,
            switches: 0,
            retry_at: Timestamp::ZERO,
            retry_wait: SWITCH_WAIT_FIRST,
        }
    }

    /// Whether the camera's other stream is to run for its sake.
    pub(crate) fn expects(&self, other: StreamId) -> bool {
        self.waits || self.switch.is_some_and(|switch| switch.to == other)
    }

    /// What was known of a peer that is gone.
    pub(crate) fn forget_peer(&mut self) {
        self.switch = None;
        self.codecs = CodecSet::ALL;
        self.is_reader = false;
    }

    pub(crate) fn note_failed_switch(&mut self, now: Timestamp) {
        self.retry_at = now + self.retry_wait;
        self.retry_wait = (self.retry_wait * 2).min(SWITCH_WAIT_MAX);
    }

    pub(crate) fn forget_failed_switches(&mut self) {
        self.retry_at = Timestamp::ZERO;
        self.retry_wait = SWITCH_WAIT_FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::SessionEvent as On;
    use super::SessionState as Is;

    #[test]
    fn every_state_answers_every_event_as_the_table_says() {
        let events = [On::Accepted, On::Connected, On::PeerFailed, On::PeerLeft, On::LeaseEnded];
        let table = [
            (Is::Reserved, [Is::Negotiated, Is::Reserved, Is::Reserved, Is::Reserved, Is::Ended]),
            (Is::Negotiated, [Is::Negotiated, Is::Connected, Is::Reserved, Is::Ended, Is::Ended]),
            (Is::Connected, [Is::Negotiated, Is::Connected, Is::Reserved, Is::Ended, Is::Ended]),
            (Is::Ended, [Is::Ended; 5]),
        ];
        for (state, expected) in table {
            for (event, next) in events.into_iter().zip(expected) {
                assert_eq!(state.on(event), next, "{state:?} on {event:?}");
            }
        }
    }
}
