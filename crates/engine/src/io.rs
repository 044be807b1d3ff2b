//! What goes into the engine and what comes out of it.

use std::time::Duration;

use control::ledger::Snapshot;
use control::{
    Camera, CameraId, Class, Exceeded, Lease, LedgerOp, Quality, ReservationId, SourceId,
    Timestamp, Usage,
};
use media::estimate::LineState;
use media::peers::CloseReason;
use media::{Codec, CodecSet, StreamId, ViewerId};

use crate::failure::{CodecMismatch, SourceFailure};
use crate::note::{EndReason, Note};
use crate::revocation::Revocation;
use crate::stream::Rendition;

/// Names a request, so that its reply finds the way back. Chosen by the caller, unique among the
/// requests under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Names a ledger operation, so that its outcome finds the way back. Chosen by the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub(crate) u64);

/// Names a hold on a stream. Chosen by the engine, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId(pub(crate) u64);

/// A camera, as the engine runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraSpec {
    /// Who it is.
    pub camera: Camera,
    /// `false` keeps its main stream running without viewers.
    pub on_demand: bool,
    /// How long a stream is kept after its last viewer.
    pub close_after: Duration,
    /// Changes whenever the camera is to be reached differently: running sources are started anew.
    pub revision: u64,
}

/// What a client asks for. Each request gets exactly one [`Reply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A lease on a camera.
    Reserve {
        /// The new reservation's id, random.
        reservation: ReservationId,
        /// Which camera.
        camera: CameraId,
        /// Who asks. The caller bounds its length.
        user: String,
        /// Which rendition.
        quality: Quality,
        /// How much it matters.
        class: Class,
    },
    /// The end of a lease.
    Release {
        /// Whose.
        reservation: ReservationId,
    },
    /// The end of all leases and pullers of a camera, or of all cameras. Cameras that are kept warm are called
    /// again after that.
    Reset {
        /// Which camera; all when absent.
        camera: Option<CameraId>,
        /// Leases that the ledger told of, those of other nodes among them.
        leases: Vec<ReservationId>,
    },
    /// The end of a lease whose viewer may not watch any more. Answered like a release.
    Revoke {
        /// Whose.
        reservation: ReservationId,
        /// Why.
        cause: Revocation,
    },
    /// A longer life for a lease whose media does not flow, and another quality from here on.
    Heartbeat {
        /// Whose.
        reservation: ReservationId,
        /// How long at most; the policy's time when absent.
        extend: Option<Duration>,
        /// Which rendition from here on; as before when absent.
        quality: Option<Quality>,
    },
    /// A peer on a reservation. The caller keeps its offer until [`Action::AcceptViewer`].
    Watch {
        /// Whose.
        reservation: ReservationId,
        /// The camera that the client believes to watch.
        camera: CameraId,
    },
    /// A reader on a reservation: it takes frames inside this process, so that there is no offer.
    /// Its life is told by `handle_viewer`, as a peer's is.
    Read {
        /// Whose.
        reservation: ReservationId,
        /// The camera that the client believes to read.
        camera: CameraId,
    },
    /// A stream's source for a moment, without a lease: for a description or a still picture. It is
    /// let go by `handle_let_go`, or by itself after [`crate::HOLD_TIME_MAX`].
    Hold {
        /// Which camera.
        camera: CameraId,
        /// Which of its streams.
        rendition: Rendition,
    },
    /// A stream's source for as long as another node passes its picture on, without a lease: those who
    /// watch there have theirs. It is answered as a hold, let go as one, and has no time of its own.
    Feed {
        /// Which camera.
        camera: CameraId,
        /// Which of its streams.
        rendition: Rendition,
    },
    /// The end of a peer, and of its lease.
    EndWatch {
        /// Which peer.
        viewer: ViewerId,
    },
    /// Stop a camera's pullers; they return with the next viewer.
    StopSource {
        /// Which camera.
        camera: CameraId,
    },
    /// Another limit for a source, or the configured one again. Who watches stays.
    SetLimit {
        /// Whose.
        source: SourceId,
        /// In the quota's unit; `None`: the configured one.
        limit: Option<u32>,
    },
    /// All leases and counts at one instant.
    Snapshot,
}

/// A lease and how far its source's quota is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The lease.
    pub lease: Lease,
    /// Its source's quota, this lease included.
    pub usage: Usage,
    /// What its viewer sees.
    pub watching: Watching,
}

/// What a session's viewer sees at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watching {
    /// What was last asked for.
    pub quality: Quality,
    /// Which of the camera's streams it watches.
    pub rendition: Rendition,
    /// How often it went from one stream to another.
    pub switches: u32,
}

/// A lease that was ended on request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Whose.
    pub reservation: ReservationId,
    /// The source that gets its unit back.
    pub source: SourceId,
    /// The units that the source still uses.
    pub new_count: u32,
}

/// What a reset ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reset {
    /// In the order of their ids.
    pub reservations: Vec<ReservationId>,
    /// Cameras whose pullers were stopped.
    pub cameras: Vec<CameraId>,
}

/// The answer to the [`Request`] of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The lease.
    Reserve(Result<Grant, ReserveRefusal>),
    /// The lease that ended.
    Release(Result<Released, LeaseRefusal>),
    /// The lease as it is from here on.
    Heartbeat(Result<Grant, LeaseRefusal>),
    /// The peer, whose offer was answered.
    Watch(Result<ViewerId, WatchRefusal>),
    /// The reader and its stream.
    Read(Result<Reader, WatchRefusal>),
    /// The hold and its stream.
    Hold(Result<(HoldId, StreamId), HoldRefusal>),
    /// Whether there was such a peer.
    EndWatch(bool),
    /// Whether there is such a camera.
    StopSource(bool),
    /// What was ended.
    Reset(Reset),
    /// How far the source's quota is used. `None`: the ledger could not tell, and nothing changed.
    SetLimit(Option<Usage>),
    /// All leases and counts, as the ledger has them. `None`: the ledger could not tell.
    Snapshot(Option<Snapshot>),
}

/// Why no lease was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReserveRefusal {
    /// No such camera.
    UnknownCamera,
    /// The camera's last attempt failed and none succeeded since.
    CameraOffline(SourceFailure),
    /// A quota is used up.
    Quota(Exceeded),
    /// The id is taken; choose another.
    IdTaken,
    /// The ledger cannot be asked.
    Unavailable,
    /// The server is shutting down.
    ShuttingDown,
}

/// Why nothing was done to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseRefusal {
    /// No such lease lives.
    NotFound,
    /// The ledger cannot be asked. The session stays as it is.
    Unavailable,
}

/// Why a peer was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchRefusal {
    /// No such camera.
    UnknownCamera,
    /// The reservation ended, or is for another camera.
    ReservationEnded,
    /// The media plane refused the offer. The caller knows why.
    Offer,
    /// The viewer takes nothing that the camera sends.
    Codec(CodecMismatch),
    /// The server is shutting down.
    ShuttingDown,
}

/// A reader that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// Its id among the viewers.
    pub viewer: ViewerId,
    /// What it reads.
    pub stream: StreamId,
}

/// Why a stream was not held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldRefusal {
    /// No such camera.
    UnknownCamera,
    /// The camera has no smaller picture.
    NoSub,
    /// The camera's last attempt failed and none succeeded since.
    CameraOffline(SourceFailure),
    /// [`crate::MAX_HOLDS`] are there already, or [`crate::MAX_FEEDS`].
    TooMany,
    /// The server is shutting down.
    ShuttingDown,
}

/// What a running source tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEvent {
    /// The first keyframe is there, or the format changed.
    Live {
        /// The picture's codec.
        codec: Codec,
    },
    /// The attempt ended.
    Failed(SourceFailure),
}

/// What the media plane tells of a peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ViewerEvent {
    /// Its offer was answered.
    Accepted {
        /// What it takes, of picture and sound.
        codecs: CodecSet,
    },
    /// Its offer was refused.
    Refused,
    /// Its DTLS is done.
    Connected {
        /// From the offer to here, in milliseconds.
        handshake_ms: u32,
    },
    /// An authenticated packet came from it.
    Alive {
        /// When.
        at: Timestamp,
    },
    /// The first packet of media left for it.
    FirstMedia,
    /// It plays the stream of the last [`Action::SwitchViewer`].
    Switched {
        /// Which.
        stream: StreamId,
    },
    /// The stream that it was to go to brought nothing in time: it plays its old one on.
    SwitchFailed {
        /// Where it did not get to.
        stream: StreamId,
    },
    /// How its line does.
    Line {
        /// What it tells.
        line: LineState,
        /// Which stream goes over it.
        stream: StreamId,
    },
    /// It is gone.
    Closed(CloseReason),
}

/// What the caller shall do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Apply an operation to the ledger and hand its outcome to `handle_outcome`. Outcomes are
    /// handed in in the order in which the ledger made them.
    Ledger {
        /// For the outcome.
        op: OpId,
        /// What to apply.
        ledger_op: LedgerOp,
    },
    /// Answer a request.
    Reply(RequestId, Reply),
    /// Start an attempt at a source. At most one runs a stream.
    StartSource {
        /// Where its frames go.
        stream: StreamId,
        /// Which camera.
        camera: CameraId,
        /// Which of its URLs.
        rendition: Rendition,
        /// Comes back with the attempt's events; rises by one each attempt of the stream.
        attempt: u64,
    },
    /// End the running attempt. No event of it needs to follow.
    StopSource {
        /// Whose.
        stream: StreamId,
    },
    /// The source is gone, viewers stay: drop the cached picture.
    InterruptStream {
        /// Which stream.
        stream: StreamId,
    },
    /// Neither source nor viewers are left: free everything of the stream.
    RemoveStream {
        /// Which stream.
        stream: StreamId,
    },
    /// Answer the offer of a `Watch` request; then tell `Accepted` or `Refused` of the viewer.
    AcceptViewer {
        /// The request that brought the offer.
        request: RequestId,
        /// The new peer's id.
        viewer: ViewerId,
        /// What it watches.
        stream: StreamId,
    },
    /// Let a connected peer go to another stream of its camera, without a gap; then tell `Switched`
    /// or `SwitchFailed`. The newest one counts; one to the stream that it plays takes an earlier back.
    SwitchViewer {
        /// Which peer.
        viewer: ViewerId,
        /// Where to.
        stream: StreamId,
    },
    /// A hold is over without having been let go: its source failed, or stopped, or its time is
    /// over (`None`).
    HoldEnded {
        /// Which.
        hold: HoldId,
        /// Why its source failed, if that was it.
        failure: Option<SourceFailure>,
    },
    /// End a peer or a reader.
    CloseViewer {
        /// Which.
        viewer: ViewerId,
        /// Why, which the peer is told.
        cause: CloseCause,
    },
    /// Something happened to a reservation: put it into its history, if there is one.
    Note {
        /// To which.
        reservation: ReservationId,
        /// What.
        note: Note,
    },
    /// Ask the source for a keyframe, if it can.
    RequestKeyframe {
        /// Whose.
        stream: StreamId,
    },
}

/// Why a peer is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCause {
    /// Its reservation ended.
    Ended(EndReason),
    /// Another peer came for its reservation.
    Replaced,
    /// It was not let in.
    NotLetIn,
    /// The camera sends nothing that it takes.
    Codec,
}

impl CloseCause {
    /// What the viewer is told, in its RTCP BYE (RFC 3550 §6.6).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ended(reason) => reason.as_str(),
            Self::Replaced => "a new connection took its place",
            Self::NotLetIn => "it was not let in",
            Self::Codec => "the camera sends nothing that this viewer takes",
        }
    }
}
