//! A relay, its clients' inboxes and what the media plane holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use control::Timestamp;
use engine::voice::{
    Action, ClientMessage, CloseCode, ConnectionId, Limits, Named, ReceiverEvent, Relay,
    SenderEvent, ServerMessage, Trouble, VoiceId,
};
use media::publishers::PublisherEnd;
use media::{StreamId, ViewerId};

pub(crate) const FIRST_STREAM: StreamId = StreamId(1 << 31);
pub(crate) const FIRST_VIEWER: ViewerId = ViewerId(1 << 63);

/// An SDP that nobody looks at.
pub(crate) const SDP: &str = "v=0";

pub(crate) struct World {
    pub(crate) relay: Relay,
    pub(crate) now: Timestamp,
    /// What each client was told and has not looked at.
    pub(crate) inboxes: BTreeMap<ConnectionId, Vec<ServerMessage>>,
    pub(crate) closed: BTreeMap<ConnectionId, CloseCode>,
    pub(crate) log: Vec<String>,
    /// Senders' sessions that were asked for and not closed.
    pub(crate) senders: BTreeSet<StreamId>,
    /// Receivers' sessions that were asked for and not closed.
    pub(crate) receivers: BTreeMap<ViewerId, StreamId>,
    /// Answers that were handed on.
    pub(crate) answered: Vec<ViewerId>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_places(50)
    }

    pub(crate) fn with_places(connections_max: u32) -> Self {
        let limits = Limits { connections_max, connection_timeout: Duration::from_secs(30) };
        Self {
            relay: Relay::new(limits, FIRST_STREAM, FIRST_VIEWER),
            now: Timestamp::from_millis(1_795_000_000_000),
            inboxes: BTreeMap::new(),
            closed: BTreeMap::new(),
            log: Vec::new(),
            senders: BTreeSet::new(),
            receivers: BTreeMap::new(),
            answered: Vec::new(),
        }
    }

    /// A client whose greeting is read.
    pub(crate) fn join(&mut self, number: u128) -> ConnectionId {
        let id = self.join_from(number, Ipv4Addr::new(192, 168, 1, 7));
        self.read(id);
        id
    }

    pub(crate) fn join_from(&mut self, number: u128, address: Ipv4Addr) -> ConnectionId {
        let id = ConnectionId(number);
        self.inboxes.insert(id, Vec::new());
        self.relay.handle_connect(id, IpAddr::V4(address), self.now);
        self.settle();
        id
    }

    pub(crate) fn leave(&mut self, id: ConnectionId) {
        self.inboxes.remove(&id);
        self.relay.handle_disconnect(id);
        self.settle();
    }

    pub(crate) fn say(&mut self, id: ConnectionId, message: ClientMessage) {
        self.relay.handle_message(id, Ok(message), 100, self.now);
        self.settle();
    }

    pub(crate) fn receive(&mut self, id: ConnectionId) {
        self.say(id, ClientMessage::StartReceiving { voice: Named::Nothing });
    }

    pub(crate) fn receive_voice(&mut self, id: ConnectionId, voice: ConnectionId) {
        self.say(id, ClientMessage::StartReceiving { voice: Named::Voice(VoiceId(voice)) });
    }

    pub(crate) fn stop(&mut self, id: ConnectionId) {
        self.say(id, ClientMessage::StopStream { voice: Named::Nothing });
    }

    /// `start_sending` and an offer; the session that the media plane is asked for.
    pub(crate) fn offer(&mut self, id: ConnectionId) -> StreamId {
        self.say(id, ClientMessage::StartSending { voice: Named::Nothing });
        self.say(id, ClientMessage::Offer { sdp: SDP.to_owned(), voice: Named::Nothing });
        *self.senders.last().expect("the media plane was asked to answer")
    }

    /// All of a sender's way to its first packet.
    pub(crate) fn speak(&mut self, id: ConnectionId) -> StreamId {
        let stream = self.offer(id);
        self.sender(stream, SenderEvent::Accepted { sdp: SDP.to_owned() });
        self.sender(stream, SenderEvent::Connected);
        self.sender(stream, SenderEvent::Began);
        stream
    }

    pub(crate) fn sender(&mut self, stream: StreamId, event: SenderEvent) {
        if matches!(event, SenderEvent::Refused(_) | SenderEvent::Ended(_)) {
            self.senders.remove(&stream);
        }
        self.relay.handle_sender(stream, event, self.now);
        self.settle();
    }

    /// A sender goes silent.
    pub(crate) fn pull_cable(&mut self, stream: StreamId) {
        self.sender(stream, SenderEvent::Ended(PublisherEnd::Silent));
    }

    pub(crate) fn receiver(&mut self, viewer: ViewerId, event: ReceiverEvent) {
        if matches!(event, ReceiverEvent::NotOffered | ReceiverEvent::Closed(_)) {
            self.receivers.remove(&viewer);
        }
        self.relay.handle_receiver(viewer, event, self.now);
        self.settle();
    }

    /// The newest session of a receiver that the media plane was asked for.
    pub(crate) fn newest_receiver(&self) -> ViewerId {
        *self.receivers.last_key_value().expect("the media plane was asked for an offer").0
    }

    /// The media plane makes the newest offer; whose session it is.
    pub(crate) fn make_offer(&mut self) -> ViewerId {
        let viewer = self.newest_receiver();
        self.receiver(viewer, ReceiverEvent::Offered { sdp: SDP.to_owned() });
        viewer
    }

    /// The newest session from its offer to sound.
    pub(crate) fn connect_receiver(&mut self, id: ConnectionId) -> ViewerId {
        let viewer = self.make_offer();
        self.say(id, ClientMessage::Answer { sdp: SDP.to_owned(), voice: Named::Nothing });
        self.receiver(viewer, ReceiverEvent::Answered);
        self.receiver(viewer, ReceiverEvent::Connected);
        viewer
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.relay.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.relay.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// What a client was told since it last looked.
    pub(crate) fn read(&mut self, id: ConnectionId) -> Vec<ServerMessage> {
        self.inboxes.get_mut(&id).map(std::mem::take).unwrap_or_default()
    }

    /// Forgets what everybody was told so far.
    pub(crate) fn read_all(&mut self) {
        self.inboxes.values_mut().for_each(Vec::clear);
        self.log.clear();
    }

    /// Does what the relay asks for, and looks whether it is in order.
    pub(crate) fn settle(&mut self) {
        while let Some(action) = self.relay.poll_action() {
            self.run(action);
        }
        if let Err(wrong) = self.relay.check() {
            panic!("{wrong}");
        }
    }

    fn run(&mut self, action: Action) {
        match action {
            Action::Tell(id, message) => {
                if let Some(inbox) = self.inboxes.get_mut(&id) {
                    inbox.push(message);
                }
            }
            Action::TellAll(message) => {
                self.inboxes.values_mut().for_each(|inbox| inbox.push(message.clone()));
            }
            Action::AcceptSender { stream, .. } => {
                assert!(self.senders.insert(stream), "{stream:?} is a new session");
            }
            Action::CloseSender { stream } => {
                self.senders.remove(&stream);
            }
            Action::MakeOffer { viewer, stream } => {
                assert_eq!(self.receivers.insert(viewer, stream), None, "a new session");
            }
            Action::TakeAnswer { viewer, .. } => self.answered.push(viewer),
            Action::CloseReceiver { viewer } => {
                self.receivers.remove(&viewer);
            }
            Action::VoicesChanged => {}
            Action::CloseSocket(id, code) => {
                assert_eq!(self.closed.insert(id, code), None, "closed once");
                assert!(self.inboxes.contains_key(&id));
            }
            Action::Log(line) => self.log.push(line.to_string()),
        }
    }
}

pub(crate) fn error(trouble: impl Into<Trouble>) -> ServerMessage {
    ServerMessage::Error(trouble.into())
}

pub(crate) fn available(id: ConnectionId) -> ServerMessage {
    ServerMessage::StreamAvailable(VoiceId(id))
}

pub(crate) fn ended(id: ConnectionId) -> ServerMessage {
    ServerMessage::StreamEnded(VoiceId(id))
}

pub(crate) fn offer_of(id: ConnectionId) -> ServerMessage {
    ServerMessage::Offer { sdp: SDP.to_owned(), voice: VoiceId(id) }
}
