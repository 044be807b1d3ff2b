//! Who speaks.

use control::Timestamp;
use media::StreamId;
use media::publishers::PublisherEnd;

use super::io::{
    Action, ConnectionId, IceState, LogLine, Named, Role, SenderEvent, ServerMessage,
    ServerTrouble, Trouble, VoiceId,
};
use super::{ENDED_KEPT, LiveVoice, Relay, Timer};

/// The speaking half of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// Its offer is awaited.
    Ready,
    /// The media plane answers its offer.
    Answering(StreamId),
    /// ICE and DTLS are under way.
    Connecting(StreamId),
    /// No sound came so far.
    Connected(StreamId),
    /// It is a voice.
    Live(StreamId),
}

impl Sending {
    /// Its session, if it has one.
    pub(super) fn stream(self) -> Option<StreamId> {
        match self {
            Self::Ready => None,
            Self::Answering(stream)
            | Self::Connecting(stream)
            | Self::Connected(stream)
            | Self::Live(stream) => Some(stream),
        }
    }

    /// Whether ICE and DTLS are done.
    pub(super) fn is_connected(self) -> bool {
        match self {
            Self::Connected(_) | Self::Live(_) => true,
            Self::Ready | Self::Answering(_) | Self::Connecting(_) => false,
        }
    }
}

impl Relay {
    /// The media plane tells of who speaks. What it tells of sessions that are over is passed over; an
    /// offer that was answered too late is closed.
    pub fn handle_sender(&mut self, stream: StreamId, event: SenderEvent, now: Timestamp) {
        let Some(id) = self.senders.get(&stream).copied() else {
            if matches!(event, SenderEvent::Accepted { .. }) {
                self.act(Action::CloseSender { stream });
            }
            return;
        };
        match event {
            SenderEvent::Accepted { sdp } => {
                if self.sending(id) == Some(Sending::Answering(stream)) {
                    self.set_sending(id, Sending::Connecting(stream));
                }
                self.tell(id, ServerMessage::Answer { sdp });
            }
            SenderEvent::Refused(sentence) => {
                self.end_sender(id, PublisherEnd::Asked);
                self.tell_trouble(id, ServerTrouble::Refused(sentence).into());
            }
            SenderEvent::Connected => self.sender_connected(id, stream),
            SenderEvent::Began => self.begin_voice(id, stream, now),
            SenderEvent::Level { level, at } => {
                if self.sending(id) == Some(Sending::Live(stream)) {
                    let voice = VoiceId(id);
                    self.act(Action::TellAll(ServerMessage::Level { voice, level, at }));
                }
            }
            SenderEvent::Ended(end) => self.sender_ended(id, end),
        }
    }

    pub(super) fn start_sending(&mut self, id: ConnectionId, voice: Named) {
        if !is_own(id, voice) {
            return self.tell_trouble(id, ServerTrouble::NotYours.into());
        }
        self.log(LogLine::SettingUp(id));
        self.stop_sending(id);
        self.set_sending(id, Sending::Ready);
        self.tell(id, ServerMessage::SenderReady { connection: id });
    }

    /// Each offer is a fresh session; the one before is over.
    pub(super) fn take_offer(
        &mut self,
        id: ConnectionId,
        sdp: String,
        voice: Named,
        now: Timestamp,
    ) {
        if !is_own(id, voice) {
            return self.tell_trouble(id, ServerTrouble::NotYours.into());
        }
        if self.sending(id).is_none() {
            return self.tell_trouble(id, ServerTrouble::NotSending.into());
        }
        self.end_sender(id, PublisherEnd::Asked);
        let stream = self.next_stream;
        self.next_stream = StreamId(stream.0.wrapping_add(1));
        self.senders.insert(stream, id);
        self.set_sending(id, Sending::Answering(stream));
        self.timers.set(Timer::SenderConnects(stream), now + self.limits.connection_timeout);
        self.act(Action::AcceptSender { stream, offer: sdp });
    }

    /// It speaks no more, by its own will or as it is gone.
    pub(super) fn stop_sending(&mut self, id: ConnectionId) {
        self.end_sender(id, PublisherEnd::Asked);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.sending = None;
        }
    }

    pub(super) fn sender_timed_out(&mut self, stream: StreamId) {
        if let Some(id) = self.senders.get(&stream).copied() {
            self.sender_ended(id, PublisherEnd::NeverConnected);
        }
    }

    fn sender_connected(&mut self, id: ConnectionId, stream: StreamId) {
        self.timers.clear(Timer::SenderConnects(stream));
        // Sound may be told of before the end of DTLS is.
        if self.sending(id) != Some(Sending::Live(stream)) {
            self.set_sending(id, Sending::Connected(stream));
        }
        self.log_sender(id, IceState::Connected);
    }

    fn begin_voice(&mut self, id: ConnectionId, stream: StreamId, now: Timestamp) {
        if self.sending(id) == Some(Sending::Live(stream)) {
            return;
        }
        // Sound that is authentic came by DTLS that is done.
        self.timers.clear(Timer::SenderConnects(stream));
        self.set_sending(id, Sending::Live(stream));
        let voice = VoiceId(id);
        self.live.push(LiveVoice { voice, stream });
        self.ended.retain(|ended| *ended != voice);
        self.figures.voices += 1;
        self.log(LogLine::Received(id));
        self.log(LogLine::Stored(voice));
        self.act(Action::VoicesChanged);
        self.act(Action::TellAll(ServerMessage::StreamAvailable(voice)));
        self.wake_waiting(voice, now);
    }

    /// The media plane, or the clock, ended it.
    fn sender_ended(&mut self, id: ConnectionId, end: PublisherEnd) {
        let (state, trouble) = match end {
            PublisherEnd::Peer | PublisherEnd::Asked => (IceState::Closed, None),
            PublisherEnd::Silent | PublisherEnd::Failed => {
                (IceState::Failed, Some(ServerTrouble::Lost))
            }
            PublisherEnd::NeverConnected => {
                self.figures.timeouts += 1;
                let timeout = self.limits.connection_timeout.as_secs();
                (IceState::Failed, Some(ServerTrouble::Timeout(timeout)))
            }
        };
        self.log_sender(id, state);
        self.end_sender(id, end);
        if let Some(trouble) = trouble {
            self.tell_trouble(id, trouble.into());
        }
    }

    /// Ends the session, if there is one; another offer may follow.
    fn end_sender(&mut self, id: ConnectionId, end: PublisherEnd) {
        let Some(stream) = self.sending(id).and_then(Sending::stream) else { return };
        self.set_sending(id, Sending::Ready);
        self.senders.remove(&stream);
        self.timers.clear(Timer::SenderConnects(stream));
        if let Some(at) = self.live.iter().position(|live| live.stream == stream) {
            self.live.remove(at);
            self.end_voice(VoiceId(id), stream, end);
        }
        self.act(Action::CloseSender { stream });
    }

    fn end_voice(&mut self, voice: VoiceId, stream: StreamId, end: PublisherEnd) {
        self.log(LogLine::TrackEnded(voice.0));
        if end == PublisherEnd::Silent {
            self.log(LogLine::Stale(voice));
        }
        if self.ended.len() == ENDED_KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(voice);
        for receiver in self.hearers_of(stream) {
            self.stop_receiving(receiver);
            self.tell_trouble(receiver, Trouble::StreamEnded);
        }
        self.act(Action::VoicesChanged);
        self.act(Action::TellAll(ServerMessage::StreamEnded(voice)));
    }

    fn sending(&self, id: ConnectionId) -> Option<Sending> {
        self.connections.get(&id)?.sending
    }

    fn set_sending(&mut self, id: ConnectionId, sending: Sending) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.sending = Some(sending);
        }
    }

    fn log_sender(&mut self, connection: ConnectionId, state: IceState) {
        self.log(LogLine::Ice { role: Role::Sender, connection, state });
    }
}

fn is_own(id: ConnectionId, voice: Named) -> bool {
    match voice {
        Named::Nothing => true,
        Named::Voice(voice) => voice == VoiceId(id),
        Named::Nonsense => false,
    }
}
