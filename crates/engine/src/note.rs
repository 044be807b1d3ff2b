//! What happens to a reservation, for whoever keeps its history. The engine itself remembers none of it.

use control::{EndCause, Reservation};
use media::ViewerId;
use media::peers::CloseReason;

use crate::adapt::SwitchReason;
use crate::failure::{CodecMismatch, SourceFailure};
use crate::revocation::Revocation;
use crate::stream::Rendition;

/// A step in the life of a reservation. What the media plane tells of a peer the caller knows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// It was granted.
    Begun {
        /// What was granted.
        reservation: Box<Reservation>,
        /// The stream with which it begins.
        rendition: Rendition,
    },
    /// The stream that it watches gives a picture: its first keyframe is there.
    CameraLive,
    /// The stream that it watches gives none.
    CameraFailed(SourceFailure),
    /// The offer of a peer was answered.
    Answered {
        /// The peer.
        viewer: ViewerId,
    },
    /// A reader takes frames inside this process; it needs no handshake.
    Reading {
        /// The reader.
        viewer: ViewerId,
    },
    /// The peer went to another stream of the camera.
    Switched {
        /// What it watches.
        to: Rendition,
        /// Why it went there.
        reason: SwitchReason,
    },
    /// The peer was to go to another stream, which brought nothing.
    SwitchFailed {
        /// Where it did not get to.
        to: Rendition,
        /// Why it was to go there.
        reason: SwitchReason,
    },
    /// The peer was closed, since it takes nothing that the camera sends.
    Mismatched(CodecMismatch),
    /// The peer's connection did not come about, or broke. The reservation goes on.
    PeerGone(CloseReason),
    /// The reservation is over.
    Ended(EndReason),
}

/// Why a reservation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Its lease was released.
    Released,
    /// Its peer was ended on request.
    Ended,
    /// Its peer left.
    PeerLeft,
    /// An operator reset its camera, or all.
    Reset,
    /// Its right to watch was taken away.
    Revoked(Revocation),
    /// Its lease ran out.
    Expired,
    /// A reservation of a higher class took its place.
    Preempted,
    /// Its lease was deleted in the store.
    Deleted,
    /// Its camera was removed.
    CameraRemoved,
    /// The server shuts down.
    Shutdown,
}

impl EndReason {
    pub(crate) fn of(cause: EndCause) -> Self {
        match cause {
            EndCause::Expired => Self::Expired,
            EndCause::Preempted { .. } => Self::Preempted,
            EndCause::Deleted => Self::Deleted,
            EndCause::ReleasedElsewhere => Self::Released,
        }
    }

    /// As programs tell it from others.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Released => "RELEASED",
            Self::Ended => "ENDED",
            Self::PeerLeft => "LEFT",
            Self::Reset => "RESET",
            Self::Revoked(cause) => cause.code(),
            Self::Expired => "EXPIRED",
            Self::Preempted => "PREEMPTED",
            Self::Deleted => "DELETED",
            Self::CameraRemoved => "CAMERA_REMOVED",
            Self::Shutdown => "SHUTDOWN",
        }
    }

    /// As half a sentence.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Ended => "ended by the client",
            Self::PeerLeft => "the viewer closed its connection",
            Self::Reset => "an operator reset the camera",
            Self::Revoked(cause) => cause.as_str(),
            Self::Expired => "the lease ran out",
            Self::Preempted => "a reservation of a higher class took its place",
            Self::Deleted => "its lease was deleted in the store",
            Self::CameraRemoved => "the camera was removed",
            Self::Shutdown => "the server shuts down",
        }
    }
}
