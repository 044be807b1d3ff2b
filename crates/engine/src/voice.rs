//! The voice relay's state, sans-IO: who is connected, who speaks, who hears whom.
//!
//! [`Relay`] is told what happens and when (`handle_*`) and is drained of what shall be done
//! ([`Relay::poll_action`]). It knows no socket, no JSON and no packet. It does not count packets and
//! does not judge whether a sender is alive: the media plane does, and tells.
//!
//! ```text
//! connection --+-- sending:   ready -> answering -> connecting -> connected -> live (a voice)
//!              +-- receiving: waiting -> offering -> offered -> answered -> connected
//! ```
//! Both halves of a connection are independent. Every `start_sending` and `start_receiving` makes a
//! fresh session with ids of its own, so that what the media plane tells of an old one, however late, is
//! known to be old.
//!
//! **Invariant:** a voice is told as available once and as ended once, in this order, to everybody who is
//! connected; a receiver's session hears a live voice. [`Relay::check`] derives both anew.

mod flood;
mod io;
mod receiving;
mod sending;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use control::Timestamp;
use media::{StreamId, ViewerId};

use crate::timers::Timers;
use flood::{BYTES_A_TOKEN, Bucket, COSTLY, TOKENS_MAX, Verdict};
use receiving::Receiving;
use sending::Sending;

pub use io::{
    Action, BadMessage, ClientMessage, CloseCode, ConnectionId, IceState, LogLine, Named,
    ReceiverEvent, Role, SenderEvent, ServerMessage, ServerTrouble, Trouble, VoiceId,
};
pub use receiving::{CROSSING_TIME, OWN_OFFER_DELAY, OWN_OFFER_TIME};

/// Voices that ended and are remembered, so that who asks for one is told so. An operator who looks at
/// the log is after the last few.
const ENDED_KEPT: usize = 64;

/// What the operator sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// WebSockets at once.
    pub connections_max: u32,
    /// From an offer to the end of ICE and DTLS.
    pub connection_timeout: Duration,
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Clients that found all places taken.
    pub refused: u64,
    /// Idle clients that gave way to a newcomer.
    pub gave_way: u64,
    /// Clients that were closed since they flooded.
    pub flooded: u64,
    /// Messages that were not read, since too many came.
    pub messages_dropped: u64,
    /// Messages that cannot be understood.
    pub messages_bad: u64,
    /// Voices that began.
    pub voices: u64,
    /// Receivers to whom DTLS was done.
    pub receivers: u64,
    /// Sessions whose ICE and DTLS did not finish in time.
    pub timeouts: u64,
}

/// A voice that is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveVoice {
    /// Who speaks.
    pub voice: VoiceId,
    /// Where its sound is.
    pub stream: StreamId,
}

/// How much is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Residue {
    /// WebSockets.
    pub connections: usize,
    /// Senders' sessions, live or not.
    pub senders: usize,
    /// Voices that are heard.
    pub voices: usize,
    /// Receivers' sessions.
    pub receivers: usize,
    /// Receivers that wait for a voice.
    pub waiting: usize,
    /// Timers that are set.
    pub timers: usize,
}

/// One WebSocket.
#[derive(Debug)]
struct Connection {
    address: IpAddr,
    bucket: Bucket,
    sending: Option<Sending>,
    receiving: Option<Receiving>,
}

impl Connection {
    /// No media flows for it. One whose handshake is under way counts as idle: anybody can begin one
    /// again and again.
    fn is_idle(&self) -> bool {
        let sends = self.sending.as_ref().is_some_and(|sending| sending.is_connected());
        let hears = self.receiving.as_ref().is_some_and(|receiving| receiving.is_connected());
        !sends && !hears
    }
}

/// What happens when a time comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A sender's ICE and DTLS must be done.
    SenderConnects(StreamId),
    /// A receiver's ICE and DTLS must be done.
    ReceiverConnects(ViewerId),
    /// A receiver that waited, and has not asked since its voice began, is offered it.
    Offer(ConnectionId),
    /// A receiver that asked again while its offer was young has still not answered it.
    AskedAgain(ViewerId),
}

/// The relay. See the module's documentation.
///
/// Its collections are bounded: connections by [`Limits::connections_max`], everything else by two
/// sessions and four timers a connection, `ended` by `ENDED_KEPT`; `actions` by what one input causes,
/// since the caller drains them after each.
#[derive(Debug)]
pub struct Relay {
    limits: Limits,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Whose each sender's session is.
    senders: BTreeMap<StreamId, ConnectionId>,
    /// Whose each receiver's session is.
    receivers: BTreeMap<ViewerId, ConnectionId>,
    /// In the order in which they began.
    live: Vec<LiveVoice>,
    ended: VecDeque<VoiceId>,
    timers: Timers<Timer>,
    actions: VecDeque<Action>,
    figures: Figures,
    next_stream: StreamId,
    next_viewer: ViewerId,
}

impl Relay {
    /// Nobody is there. Streams and viewers are numbered from these on.
    pub fn new(limits: Limits, first_stream: StreamId, first_viewer: ViewerId) -> Self {
        Self {
            limits,
            connections: BTreeMap::new(),
            senders: BTreeMap::new(),
            receivers: BTreeMap::new(),
            live: Vec::new(),
            ended: VecDeque::new(),
            timers: Timers::default(),
            actions: VecDeque::new(),
            figures: Figures::default(),
            next_stream: first_stream,
            next_viewer: first_viewer,
        }
    }

    /// The next thing to do. Call it until `None` after every `handle_*`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Relay::handle_timeout`] wants to be called next.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// All voices in the order in which they began.
    pub fn live(&self) -> &[LiveVoice] {
        &self.live
    }

    /// What happened since the start.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// How much is there.
    pub fn residue(&self) -> Residue {
        let waits = |connection: &&Connection| {
            connection.receiving.as_ref().is_some_and(|receiving| receiving.viewer().is_none())
        };
        Residue {
            connections: self.connections.len(),
            senders: self.senders.len(),
            voices: self.live.len(),
            receivers: self.receivers.len(),
            waiting: self.connections.values().filter(waits).count(),
            timers: self.timers.len(),
        }
    }

    /// A WebSocket was opened. It is told which voices there are, or that there is no place: then it is
    /// closed, unless an idle client of an address that holds more places gives way.
    pub fn handle_connect(&mut self, id: ConnectionId, address: IpAddr, now: Timestamp) {
        let places = self.limits.connections_max;
        let is_full = self.connections.len() >= usize::try_from(places).unwrap_or(usize::MAX);
        if is_full && !self.make_way(address) {
            self.figures.refused += 1;
            self.log(LogLine::Full { address, places });
            self.tell(id, ServerMessage::Error(ServerTrouble::Full(places).into()));
            self.act(Action::CloseSocket(id, CloseCode::TryAgainLater));
            return;
        }
        let bucket = Bucket::new(now);
        let connection = Connection { address, bucket, sending: None, receiving: None };
        self.connections.insert(id, connection);
        self.tell_streams(id);
    }

    /// A WebSocket is gone.
    pub fn handle_disconnect(&mut self, id: ConnectionId) {
        if !self.connections.contains_key(&id) {
            return;
        }
        self.log(LogLine::CleaningUp(id));
        self.stop_receiving(id);
        self.stop_sending(id);
        self.connections.remove(&id);
    }

    /// A message of so many bytes came. Those of who is not connected are passed over.
    pub fn handle_message(
        &mut self,
        id: ConnectionId,
        message: Result<ClientMessage, BadMessage>,
        bytes: usize,
        now: Timestamp,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match connection.bucket.take(cost(&message, bytes), now) {
            Verdict::Read => {}
            Verdict::Tell => {
                self.figures.messages_dropped += 1;
                return self.tell_trouble(id, ServerTrouble::Flood.into());
            }
            Verdict::Drop => return self.figures.messages_dropped += 1,
            Verdict::Close => {
                let address = connection.address;
                self.figures.messages_dropped += 1;
                self.figures.flooded += 1;
                self.log(LogLine::Flooded { connection: id, address });
                return self.close(id, CloseCode::Policy);
            }
        }
        match message {
            Ok(message) => self.obey(id, message, now),
            Err(BadMessage(sentence)) => {
                self.figures.messages_bad += 1;
                self.tell_trouble(id, ServerTrouble::BadMessage(sentence).into());
            }
        }
    }

    /// Does what is due at `now`. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::SenderConnects(stream) => self.sender_timed_out(stream),
                Timer::ReceiverConnects(viewer) => self.receiver_timed_out(viewer),
                Timer::Offer(id) => self.offer_to_waiting(id, now),
                Timer::AskedAgain(viewer) => self.offer_again(viewer, now),
            }
        }
    }

    fn obey(&mut self, id: ConnectionId, message: ClientMessage, now: Timestamp) {
        match message {
            ClientMessage::StartSending { voice } => self.start_sending(id, voice),
            ClientMessage::Offer { sdp, voice } => self.take_offer(id, sdp, voice, now),
            ClientMessage::StartReceiving { voice } => self.start_receiving(id, voice, now),
            ClientMessage::Answer { sdp, voice } => self.take_answer(id, sdp, voice),
            ClientMessage::ListStreams => self.tell_streams(id),
            ClientMessage::StopStream { voice } => self.stop_stream(id, voice),
            ClientMessage::Ping => self.tell(id, ServerMessage::Pong),
            ClientMessage::Candidate | ClientMessage::LocalIp | ClientMessage::Control => {}
        }
    }

    fn stop_stream(&mut self, id: ConnectionId, voice: Named) {
        match voice {
            Named::Nothing => {
                self.stop_receiving(id);
                self.stop_sending(id);
            }
            Named::Voice(voice) if voice == VoiceId(id) => self.stop_sending(id),
            Named::Voice(voice) if self.heard_by(id) == Some(voice) => self.stop_receiving(id),
            Named::Voice(_) | Named::Nonsense => {
                self.tell_trouble(id, ServerTrouble::NotYours.into());
            }
        }
    }

    /// Whether an idle client of an address that holds more than the newcomer's would left.
    fn make_way(&mut self, newcomer: IpAddr) -> bool {
        let mut held: BTreeMap<IpAddr, u32> = BTreeMap::new();
        for connection in self.connections.values() {
            *held.entry(connection.address).or_default() += 1;
        }
        // With the newcomer: at a tie the two would throw each other out for ever.
        let own = held.get(&newcomer).map_or(1, |held| held + 1);
        let held_by = |connection: &Connection| held.get(&connection.address).copied().unwrap_or(0);
        let idle = self.connections.iter().filter(|(_, connection)| connection.is_idle());
        // Who waits for a voice comes last.
        let most = idle.max_by_key(|(_, c)| (held_by(c), c.receiving.is_none()));
        let Some((id, connection)) = most else { return false };
        if held_by(connection) <= own {
            return false;
        }
        let id = *id;
        self.figures.gave_way += 1;
        self.tell_trouble(id, ServerTrouble::GaveWay.into());
        self.close(id, CloseCode::TryAgainLater);
        true
    }

    /// Forgets a client and closes its WebSocket.
    fn close(&mut self, id: ConnectionId, code: CloseCode) {
        self.handle_disconnect(id);
        self.act(Action::CloseSocket(id, code));
    }

    fn tell_streams(&mut self, id: ConnectionId) {
        let voices = self.live.iter().map(|live| live.voice).collect();
        self.tell(id, ServerMessage::AvailableStreams(voices));
    }

    fn tell(&mut self, id: ConnectionId, message: ServerMessage) {
        self.act(Action::Tell(id, message));
    }

    fn tell_trouble(&mut self, id: ConnectionId, trouble: Trouble) {
        self.tell(id, ServerMessage::Error(trouble));
    }

    fn log(&mut self, line: LogLine) {
        self.act(Action::Log(line));
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// Derives anew what must hold, for tests: what does not, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        let sending = self
            .connections
            .iter()
            .filter_map(|(id, connection)| Some((connection.sending.as_ref()?.stream()?, *id)));
        same("senders", &sending.collect(), &self.senders)?;
        let receiving = self
            .connections
            .iter()
            .filter_map(|(id, connection)| Some((connection.receiving.as_ref()?.viewer()?, *id)));
        same("receivers", &receiving.collect(), &self.receivers)?;
        for live in &self.live {
            let owner = self.senders.get(&live.stream).map(|id| VoiceId(*id));
            if owner != Some(live.voice) {
                return Err(format!("{} is live and nobody speaks", live.voice));
            }
        }
        for id in self.connections.keys() {
            if self.heard_stream(*id).is_some_and(|s| self.live.iter().all(|l| l.stream != s)) {
                return Err(format!("{id} hears what is not live"));
            }
        }
        let timers_max = 2 * self.receivers.len() + self.senders.len() + self.connections.len();
        if self.timers.len() > timers_max {
            return Err(format!("{} timers are set for {timers_max}", self.timers.len()));
        }
        Ok(())
    }
}

fn same<K: Ord + std::fmt::Debug>(
    what: &str,
    derived: &BTreeMap<K, ConnectionId>,
    kept: &BTreeMap<K, ConnectionId>,
) -> Result<(), String> {
    if derived == kept { Ok(()) } else { Err(format!("{what}: {derived:?} beside {kept:?}")) }
}

fn cost(message: &Result<ClientMessage, BadMessage>, bytes: usize) -> u32 {
    let base = match message {
        Ok(
            ClientMessage::StartSending { .. }
            | ClientMessage::Offer { .. }
            | ClientMessage::StartReceiving { .. },
        ) => COSTLY,
        Ok(
            ClientMessage::Answer { .. }
            | ClientMessage::Candidate
            | ClientMessage::ListStreams
            | ClientMessage::StopStream { .. }
            | ClientMessage::Ping
            | ClientMessage::LocalIp
            | ClientMessage::Control,
        )
        | Err(_) => 1,
    };
    base + u32::try_from(bytes / BYTES_A_TOKEN).unwrap_or(TOKENS_MAX)
}
