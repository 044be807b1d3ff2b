//! What goes into the voice relay and what comes out of it.

use std::fmt;
use std::net::IpAddr;

use control::Timestamp;
use media::peers::CloseReason;
use media::publishers::PublisherEnd;
use media::{AudioLevel, StreamId, ViewerId};

/// Names a WebSocket for its life: random, chosen by the caller, never reused. Printed as a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u128);

impl ConnectionId {
    /// Reads what [`fmt::Display`] writes, in capitals or not.
    pub fn parse(text: &str) -> Option<Self> {
        let groups: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        let digits = groups.concat();
        let is_uuid = lengths == [8, 4, 4, 4, 12] && digits.bytes().all(|d| d.is_ascii_hexdigit());
        if is_uuid { u128::from_str_radix(&digits, 16).ok().map(Self) } else { None }
    }
}

impl fmt::Display for ConnectionId {
    /// RFC 9562 §4.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
        write!(f, "{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
    }
}

/// Names what a connection says, one voice at a time: `stream_<connection id>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VoiceId(pub ConnectionId);

impl VoiceId {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        ConnectionId::parse(text.strip_prefix("stream_")?).map(Self)
    }
}

impl fmt::Display for VoiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream_{}", self.0)
    }
}

/// Which voice a client means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// It says nothing of it.
    Nothing,
    /// This one.
    Voice(VoiceId),
    /// Something that no voice was ever called.
    Nonsense,
}

/// A message of a client that can be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// It wants to speak; an offer follows.
    StartSending {
        /// Its own voice, or nothing.
        voice: Named,
    },
    /// Who speaks offers sound.
    Offer {
        /// The description. The caller bounds its length.
        sdp: String,
        /// Its own voice, or nothing.
        voice: Named,
    },
    /// It wants to hear a voice, or the newest.
    StartReceiving {
        /// Which.
        voice: Named,
    },
    /// What it says to our offer.
    Answer {
        /// The description. The caller bounds its length.
        sdp: String,
        /// The voice that was offered, or nothing.
        voice: Named,
    },
    /// Trickle: accepted, never needed, as checks bring their source address with them (RFC 8445
    /// §7.3.1.3).
    Candidate,
    /// Which voices are there?
    ListStreams,
    /// The end of its media.
    StopStream {
        /// Its own voice: it speaks no more. The one that it hears: it listens no more. Nothing: both.
        voice: Named,
    },
    /// Is anybody there?
    Ping,
    /// Its address, which nobody needs.
    LocalIp,
    /// A control frame of its WebSocket, which is answered there and only counts.
    Control,
}

/// Why what came cannot be understood, in a sentence whose length the caller bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadMessage(pub String);

/// A message to a client.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage {
    /// Who wanted to speak may send its offer.
    SenderReady {
        /// Its own id.
        connection: ConnectionId,
    },
    /// To the offer of who speaks.
    Answer {
        /// The description, all candidates inside.
        sdp: String,
    },
    /// To who wants to hear.
    Offer {
        /// The description, all candidates inside.
        sdp: String,
        /// What is offered.
        voice: VoiceId,
    },
    /// All voices, the newest last.
    AvailableStreams(Vec<VoiceId>),
    /// A voice began.
    StreamAvailable(VoiceId),
    /// A voice ended.
    StreamEnded(VoiceId),
    /// How loud a voice is.
    Level {
        /// Which.
        voice: VoiceId,
        /// How loud.
        level: AudioLevel,
        /// When.
        at: Timestamp,
    },
    /// To a ping.
    Pong,
    /// Something did not work.
    Error(Trouble),
}

/// What a client is told of something that did not work. Prints the words of the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// There is nothing to hear.
    #[error("No audio stream available")]
    NoStream,
    /// What was heard ended.
    #[error("Stream ended")]
    StreamEnded,
    /// Everything else.
    #[error("Server error: {0}")]
    Server(ServerTrouble),
}

/// The details of a [`Trouble::Server`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerTrouble {
    /// The message cannot be understood.
    #[error("{0}")]
    BadMessage(String),
    /// More messages than anybody needs.
    #[error("too many messages; this one was not read, and the connection is closed if it goes on")]
    Flood,
    /// All places are taken.
    #[error(
        "all {0} places for clients are taken; try again later, or raise server.max_connections"
    )]
    Full(u32),
    /// An idle client gave way to a newcomer.
    #[error("this place was needed for another client, as nothing was sent or received here")]
    GaveWay,
    /// An offer before `start_sending`.
    #[error("nobody asked to speak here; send start_sending before the offer")]
    NotSending,
    /// An answer to no offer.
    #[error("no offer waits for this answer; send start_receiving first")]
    NoOffer,
    /// A stream that is neither its own nor what it hears.
    #[error("this stream belongs to another connection")]
    NotYours,
    /// The media plane refused an offer or an answer.
    #[error("{0}")]
    Refused(String),
    /// No offer could be made.
    #[error("no offer could be made; the server is ending")]
    NoOfferMade,
    /// ICE and DTLS did not finish.
    #[error(
        "no connection for sound came about within {0} s; check that UDP and TCP to the server's \
         media port are let through"
    )]
    Timeout(u64),
    /// It stood, and stands no more.
    #[error("the connection for sound is lost; send start_sending or start_receiving again")]
    Lost,
}

impl From<ServerTrouble> for Trouble {
    fn from(trouble: ServerTrouble) -> Self {
        Self::Server(trouble)
    }
}

/// What the media plane tells of who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderEvent {
    /// Its offer was answered.
    Accepted {
        /// The answer.
        sdp: String,
    },
    /// Its offer was refused, with a sentence.
    Refused(String),
    /// Its DTLS is done.
    Connected,
    /// The first packet of sound came.
    Began,
    /// How loud it is; at most ten times a second.
    Level {
        /// How loud.
        level: AudioLevel,
        /// When.
        at: Timestamp,
    },
    /// It is gone.
    Ended(PublisherEnd),
}

/// What the media plane tells of who hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// The offer for it.
    Offered {
        /// The description.
        sdp: String,
    },
    /// No offer could be made.
    NotOffered,
    /// Its answer was taken.
    Answered,
    /// Its answer was refused, with a sentence.
    Refused(String),
    /// Its DTLS is done.
    Connected,
    /// It is gone.
    Closed(CloseReason),
}

/// Why a WebSocket is closed by us (RFC 6455 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// 1008: it floods.
    Policy,
    /// 1013: all places are taken.
    TryAgainLater,
}

/// What the caller shall do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send a message to one client.
    Tell(ConnectionId, ServerMessage),
    /// Send a message to all clients. A [`ServerMessage::Level`] may be left out for who is slow.
    TellAll(ServerMessage),
    /// Answer the offer of who speaks; then tell `Accepted` or `Refused` of the stream, and what
    /// follows. Its sound goes into this stream.
    AcceptSender {
        /// New for each offer.
        stream: StreamId,
        /// The description.
        offer: String,
    },
    /// End a sender's session and everything of its stream. An offer that is being answered counts
    /// too: then as soon as it is.
    CloseSender {
        /// Which.
        stream: StreamId,
    },
    /// Offer a stream's sound; then tell `Offered` or `NotOffered` of the receiver.
    MakeOffer {
        /// New for each offer.
        viewer: ViewerId,
        /// What it hears.
        stream: StreamId,
    },
    /// Take a receiver's answer; then tell `Answered` or `Refused`.
    TakeAnswer {
        /// Whose.
        viewer: ViewerId,
        /// The description.
        answer: String,
    },
    /// End a receiver's session. No event of it needs to follow.
    CloseReceiver {
        /// Which.
        viewer: ViewerId,
    },
    /// [`super::Relay::live`] changed.
    VoicesChanged,
    /// Close a WebSocket after what it was told. It is forgotten already.
    CloseSocket(ConnectionId, CloseCode),
    /// Write a line of the log.
    Log(LogLine),
}

/// Who has a connection for sound, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Speaks.
    Sender,
    /// Hears.
    Receiver,
}

/// How a connection for sound is, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceState {
    /// ICE and DTLS are done.
    Connected,
    /// It did not come about, or was lost.
    Failed,
    /// It was ended by either side.
    Closed,
}

/// A line of the log, as scripts of operators look for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLine {
    /// Somebody wants to speak.
    SettingUp(ConnectionId),
    /// The first packet of sound came.
    Received(ConnectionId),
    /// A voice began.
    Stored(VoiceId),
    /// An offer went out.
    SentOffer {
        /// To whom.
        receiver: ConnectionId,
        /// What.
        voice: VoiceId,
    },
    /// A connection for sound changed.
    Ice {
        /// Whose half.
        role: Role,
        /// Whose.
        connection: ConnectionId,
        /// To what.
        state: IceState,
    },
    /// A WebSocket is gone.
    CleaningUp(ConnectionId),
    /// A voice ended.
    TrackEnded(ConnectionId),
    /// Somebody wants to hear what is not there.
    NoStream(ConnectionId),
    /// Somebody wants to hear what has ended.
    TrackIsEnded(VoiceId),
    /// A voice of which nothing came any more was ended.
    Stale(VoiceId),
    /// A client floods and is closed.
    Flooded {
        /// Which.
        connection: ConnectionId,
        /// Where from.
        address: IpAddr,
    },
    /// A client found all places taken.
    Full {
        /// Where from.
        address: IpAddr,
        /// How many places there are.
        places: u32,
    },
}

impl LogLine {
    /// Whether it asks for a look.
    pub fn is_warning(&self) -> bool {
        match self {
            Self::NoStream(_)
            | Self::TrackIsEnded(_)
            | Self::Flooded { .. }
            | Self::Full { .. } => true,
            Self::SettingUp(_)
            | Self::Received(_)
            | Self::Stored(_)
            | Self::SentOffer { .. }
            | Self::Ice { .. }
            | Self::CleaningUp(_)
            | Self::TrackEnded(_)
            | Self::Stale(_) => false,
        }
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SettingUp(id) => write!(f, "Setting up sender for connection {id}"),
            Self::Received(id) => write!(f, "Received audio track from sender {id}"),
            Self::Stored(voice) => write!(f, "Stored stream {voice} for sender {}", voice.0),
            Self::SentOffer { receiver, voice } => {
                write!(f, "Sent offer to receiver {receiver} for stream {voice}")
            }
            Self::Ice { role, connection, state } => {
                let role = match role {
                    Role::Sender => "sender",
                    Role::Receiver => "receiver",
                };
                let state = match state {
                    IceState::Connected => "connected",
                    IceState::Failed => "failed",
                    IceState::Closed => "closed",
                };
                write!(f, "ICE connection state for {role} {connection}: {state}")
            }
            Self::CleaningUp(id) => write!(f, "Cleaning up connection {id}"),
            Self::TrackEnded(id) => write!(f, "Audio track ended for {id}"),
            Self::NoStream(id) => write!(f, "No audio stream available for receiver {id}"),
            Self::TrackIsEnded(voice) => {
                write!(f, "Stream {voice} track is ended, cannot receive")
            }
            Self::Stale(voice) => write!(f, "Cleaning up stale stream: {voice}"),
            Self::Flooded { connection, address } => {
                write!(
                    f,
                    "Closing connection {connection} from {address}: it sends too many messages"
                )
            }
            Self::Full { address, places } => {
                write!(f, "Refusing a connection from {address}: all {places} places are taken")
            }
        }
    }
}
