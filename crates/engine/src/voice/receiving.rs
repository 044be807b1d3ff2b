//! Who hears.
//!
//! Cards differ in what they do when a voice begins that they waited for: they ask again at
//! `stream_available`, or with the next turn of a timer (2 s in cards of the old voice server), or they do nothing.
//! All must end with one session that is not disturbed. So the relay offers by itself, but only to who has
//! not asked within [`OWN_OFFER_DELAY`]; and who asks for what was just offered is taken to have crossed
//! the offer on its way: it has that offer in hand, or will. Should it have thrown that session away
//! when it asked, its session ends or stays without an answer, and it is offered anew at once.

use std::time::Duration;

use control::Timestamp;
use media::peers::CloseReason;
use media::{StreamId, ViewerId};

use super::io::{
    Action, ConnectionId, IceState, LogLine, Named, ReceiverEvent, Role, ServerMessage,
    ServerTrouble, Trouble, VoiceId,
};
use super::{Relay, Timer};

/// How long a receiver that waited is given to ask by itself when its voice begins. A client on a slow
/// network reacts to a message within some 200 ms; it is also the longest that one which does not ask
/// waits for more than a voice's first packet.
pub const OWN_OFFER_DELAY: Duration = Duration::from_millis(300);

/// How long after an offer that was asked for the same wish means the same offer: a button pressed twice.
pub const CROSSING_TIME: Duration = Duration::from_secs(1);

/// The same after an offer that nobody asked for: a card that retries every 2 s, and as much as a slow
/// network takes.
pub const OWN_OFFER_TIME: Duration = Duration::from_secs(3);

/// The hearing half of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiving {
    /// What it wants to hear is not there.
    Waiting(Wish),
    /// It has a session.
    Session(Session),
}

/// What a receiver wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Newest,
    Voice(VoiceId),
}

/// A receiver's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    viewer: ViewerId,
    stream: StreamId,
    stage: Stage,
    /// Until when the same wish means this session.
    young_until: Timestamp,
    /// The same wish came while it was young.
    asked_again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The media plane makes the offer.
    Offering,
    /// The answer is awaited.
    Offered,
    /// ICE and DTLS are under way.
    Answered,
    /// It hears.
    Connected,
}

/// Who began a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    ByClient,
    ByRelay,
}

impl Receiving {
    /// Its session, if it has one.
    pub(super) fn viewer(&self) -> Option<ViewerId> {
        match self {
            Self::Waiting(_) => None,
            Self::Session(session) => Some(session.viewer),
        }
    }

    /// Whether ICE and DTLS are done.
    pub(super) fn is_connected(&self) -> bool {
        match self {
            Self::Waiting(_) => false,
            Self::Session(session) => session.stage == Stage::Connected,
        }
    }
}

impl Relay {
    /// The media plane tells of who hears. What it tells of sessions that are over is passed over; an
    /// offer that was made too late is closed.
    pub fn handle_receiver(&mut self, viewer: ViewerId, event: ReceiverEvent, now: Timestamp) {
        let found = self.receivers.get(&viewer).copied();
        let Some((id, session)) = found.and_then(|id| Some((id, self.session(id)?))) else {
            if matches!(event, ReceiverEvent::Offered { .. }) {
                self.act(Action::CloseReceiver { viewer });
            }
            return;
        };
        match event {
            ReceiverEvent::Offered { sdp } => self.tell_offer(id, session, sdp),
            ReceiverEvent::NotOffered => {
                self.stop_receiving(id);
                self.tell_trouble(id, ServerTrouble::NoOfferMade.into());
            }
            // What follows is ICE.
            ReceiverEvent::Answered => {}
            ReceiverEvent::Refused(sentence) => {
                self.stop_receiving(id);
                self.tell_trouble(id, ServerTrouble::Refused(sentence).into());
            }
            ReceiverEvent::Connected => {
                self.timers.clear(Timer::ReceiverConnects(viewer));
                self.set_stage(id, Stage::Connected);
                self.figures.receivers += 1;
                self.log_receiver(id, IceState::Connected);
            }
            ReceiverEvent::Closed(reason) => self.receiver_closed(id, session, reason, now),
        }
    }

    pub(super) fn start_receiving(&mut self, id: ConnectionId, voice: Named, now: Timestamp) {
        let Some(stream) = self.find(voice) else { return self.refuse_receiver(id, voice) };
        match self.session(id) {
            Some(session) if session.stream == stream && now < session.young_until => {
                self.set_asked_again(id, session, now);
            }
            Some(_) | None => self.begin_session(id, stream, Begun::ByClient, now),
        }
    }

    pub(super) fn take_answer(&mut self, id: ConnectionId, sdp: String, voice: Named) {
        let awaited = self.session(id).filter(|session| session.stage == Stage::Offered);
        let Some(session) = awaited else {
            return self.tell_trouble(id, ServerTrouble::NoOffer.into());
        };
        let is_right = match voice {
            Named::Nothing => true,
            Named::Voice(voice) => self.heard_by(id) == Some(voice),
            Named::Nonsense => false,
        };
        if !is_right {
            return self.tell_trouble(id, ServerTrouble::NotYours.into());
        }
        self.set_stage(id, Stage::Answered);
        self.timers.clear(Timer::AskedAgain(session.viewer));
        self.act(Action::TakeAnswer { viewer: session.viewer, answer: sdp });
    }

    /// It hears no more, and waits for nothing.
    pub(super) fn stop_receiving(&mut self, id: ConnectionId) {
        self.timers.clear(Timer::Offer(id));
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(Receiving::Session(session)) = connection.receiving.take() else { return };
        self.receivers.remove(&session.viewer);
        self.timers.clear(Timer::ReceiverConnects(session.viewer));
        self.timers.clear(Timer::AskedAgain(session.viewer));
        self.act(Action::CloseReceiver { viewer: session.viewer });
    }

    pub(super) fn receiver_timed_out(&mut self, viewer: ViewerId) {
        let Some(id) = self.receivers.get(&viewer).copied() else { return };
        self.figures.timeouts += 1;
        self.log_receiver(id, IceState::Failed);
        self.stop_receiving(id);
        let timeout = self.limits.connection_timeout.as_secs();
        self.tell_trouble(id, ServerTrouble::Timeout(timeout).into());
    }

    /// A voice began: who waits for it gets a moment to ask by itself.
    pub(super) fn wake_waiting(&mut self, voice: VoiceId, now: Timestamp) {
        for (id, connection) in &self.connections {
            if let Some(Receiving::Waiting(wish)) = connection.receiving
                && (wish == Wish::Newest || wish == Wish::Voice(voice))
            {
                self.timers.set(Timer::Offer(*id), now + OWN_OFFER_DELAY);
            }
        }
    }

    pub(super) fn offer_to_waiting(&mut self, id: ConnectionId, now: Timestamp) {
        let receiving = self.connections.get(&id).and_then(|connection| connection.receiving);
        let Some(Receiving::Waiting(wish)) = receiving else { return };
        let voice = match wish {
            Wish::Newest => Named::Nothing,
            Wish::Voice(voice) => Named::Voice(voice),
        };
        // The voice may have ended meanwhile: then it waits on.
        if let Some(stream) = self.find(voice) {
            self.begin_session(id, stream, Begun::ByRelay, now);
        }
    }

    /// Its offer is no longer young, it asked again and has not answered: it threw the offer away.
    pub(super) fn offer_again(&mut self, viewer: ViewerId, now: Timestamp) {
        let Some(id) = self.receivers.get(&viewer).copied() else { return };
        if let Some(session) = self.session(id) {
            self.begin_session(id, session.stream, Begun::ByClient, now);
        }
    }

    /// Those with a session on a stream.
    pub(super) fn hearers_of(&self, stream: StreamId) -> Vec<ConnectionId> {
        let hears = |id: &&ConnectionId| self.heard_stream(**id) == Some(stream);
        self.receivers.values().filter(hears).copied().collect()
    }

    /// What it has a session on.
    pub(super) fn heard_stream(&self, id: ConnectionId) -> Option<StreamId> {
        self.session(id).map(|session| session.stream)
    }

    /// The voice that it has a session on.
    pub(super) fn heard_by(&self, id: ConnectionId) -> Option<VoiceId> {
        let stream = self.heard_stream(id)?;
        self.senders.get(&stream).map(|sender| VoiceId(*sender))
    }

    /// The stream of a voice that is live.
    fn find(&self, voice: Named) -> Option<StreamId> {
        let live = match voice {
            Named::Nothing => self.live.last(),
            Named::Voice(voice) => self.live.iter().find(|live| live.voice == voice),
            Named::Nonsense => None,
        };
        live.map(|live| live.stream)
    }

    /// What it wants is not there. It keeps what it hears; who hears nothing waits.
    fn refuse_receiver(&mut self, id: ConnectionId, voice: Named) {
        let wish = match voice {
            Named::Nothing => Some(Wish::Newest),
            Named::Voice(voice) => Some(Wish::Voice(voice)),
            Named::Nonsense => None,
        };
        if self.session(id).is_none()
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.receiving = wish.map(Receiving::Waiting);
        }
        if let Named::Voice(voice) = voice
            && self.ended.contains(&voice)
        {
            self.log(LogLine::TrackIsEnded(voice));
            return self.tell_trouble(id, Trouble::StreamEnded);
        }
        self.log(LogLine::NoStream(id));
        self.tell_trouble(id, Trouble::NoStream);
    }

    fn begin_session(&mut self, id: ConnectionId, stream: StreamId, begun: Begun, now: Timestamp) {
        self.stop_receiving(id);
        let viewer = self.next_viewer;
        self.next_viewer = ViewerId(viewer.0.wrapping_add(1));
        let young = match begun {
            Begun::ByClient => CROSSING_TIME,
            Begun::ByRelay => OWN_OFFER_TIME,
        };
        let (stage, young_until) = (Stage::Offering, now + young);
        let session = Session { viewer, stream, stage, young_until, asked_again: false };
        self.receivers.insert(viewer, id);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.receiving = Some(Receiving::Session(session));
        }
        let due = now + self.limits.connection_timeout;
        self.timers.set(Timer::ReceiverConnects(viewer), due);
        self.act(Action::MakeOffer { viewer, stream });
    }

    fn tell_offer(&mut self, id: ConnectionId, session: Session, sdp: String) {
        let Some(voice) = self.heard_by(id) else { return };
        if session.stage != Stage::Offering {
            return;
        }
        self.set_stage(id, Stage::Offered);
        self.tell(id, ServerMessage::Offer { sdp, voice });
        self.log(LogLine::SentOffer { receiver: id, voice });
    }

    fn receiver_closed(
        &mut self,
        id: ConnectionId,
        session: Session,
        reason: CloseReason,
        now: Timestamp,
    ) {
        let (state, trouble) = match reason {
            CloseReason::Peer | CloseReason::Asked => (IceState::Closed, None),
            CloseReason::ConsentExpired | CloseReason::Failed => {
                (IceState::Failed, Some(ServerTrouble::Lost))
            }
            CloseReason::NeverConnected | CloseReason::Handshake => {
                self.figures.timeouts += 1;
                let timeout = self.limits.connection_timeout.as_secs();
                (IceState::Failed, Some(ServerTrouble::Timeout(timeout)))
            }
        };
        self.log_receiver(id, state);
        if session.asked_again && now < session.young_until {
            return self.begin_session(id, session.stream, Begun::ByClient, now);
        }
        self.stop_receiving(id);
        if let Some(trouble) = trouble {
            self.tell_trouble(id, trouble.into());
        }
    }

    fn session(&self, id: ConnectionId) -> Option<Session> {
        match self.connections.get(&id)?.receiving? {
            Receiving::Waiting(_) => None,
            Receiving::Session(session) => Some(session),
        }
    }

    fn set_asked_again(&mut self, id: ConnectionId, session: Session, now: Timestamp) {
        self.change_session(id, |session| session.asked_again = true);
        match session.stage {
            Stage::Offering | Stage::Offered => {
                let due = session.young_until.max(now);
                self.timers.set(Timer::AskedAgain(session.viewer), due);
            }
            Stage::Answered | Stage::Connected => {}
        }
    }

    fn set_stage(&mut self, id: ConnectionId, stage: Stage) {
        self.change_session(id, |session| session.stage = stage);
    }

    fn change_session(&mut self, id: ConnectionId, change: impl FnOnce(&mut Session)) {
        let receiving = self.connections.get_mut(&id).and_then(|c| c.receiving.as_mut());
        if let Some(Receiving::Session(session)) = receiving {
            change(session);
        }
    }

    fn log_receiver(&mut self, connection: ConnectionId, state: IceState) {
        self.log(LogLine::Ice { role: Role::Receiver, connection, state });
    }
}
