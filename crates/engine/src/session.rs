//! The life of a session: one reservation and the peer that uses it.

use control::{Reservation, Timestamp};
use media::{StreamId, ViewerId};

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
