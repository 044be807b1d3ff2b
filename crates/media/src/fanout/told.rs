//! What the fan-out tells of its viewers, and what it counts.

use std::time::Instant;

use crate::estimate::LineState;
use crate::frame::{StreamId, ViewerId};
use crate::route::Route;
use crate::viewer::{Tally, TrackFigures};

/// What the fan-out tells of its viewers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FanoutEvent {
    /// The first packet of media was put into a batch for this viewer.
    FirstMedia {
        /// Whose.
        viewer: ViewerId,
    },
    /// Authentic feedback came, at most once a second.
    Alive {
        /// From whom.
        viewer: ViewerId,
        /// When.
        at: Instant,
        /// What it was sent so far.
        sent: TrackFigures,
    },
    /// It is detached. Comes exactly once for every viewer that was attached.
    Detached {
        /// Who.
        viewer: ViewerId,
        /// What it was sent, all in all.
        sent: TrackFigures,
    },
    /// Its feedback came along another path, so media goes there from here on.
    Moved {
        /// Who moved.
        viewer: ViewerId,
        /// The new path.
        route: Route,
    },
    /// It said BYE.
    Goodbye {
        /// Who.
        viewer: ViewerId,
    },
    /// A viewer cannot decode, and there is no cached group or it did not help: the source should send
    /// a keyframe.
    KeyframeWanted {
        /// Of which stream.
        stream: StreamId,
    },
    /// A viewer plays the stream that it was last told to go to.
    Switched {
        /// Who.
        viewer: ViewerId,
        /// What it plays.
        stream: StreamId,
    },
    /// A viewer was told to go to a stream that brought nothing to begin with within
    /// [`SWITCH_TIMEOUT`](super::SWITCH_TIMEOUT); it stays where it is.
    SwitchFailed {
        /// Who.
        viewer: ViewerId,
        /// Where it did not get to.
        stream: StreamId,
    },
    /// How a viewer's line does, where that differs from what was told before; at most once a second.
    Line {
        /// Whose.
        viewer: ViewerId,
        /// What the viewer told of it.
        line: LineState,
        /// Which stream it plays.
        stream: StreamId,
    },
}

/// Counters since the start; all rise, except `viewers` and `viewers_limited`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FanoutFigures {
    /// Frames of all streams that came in.
    pub frames_in: u64,
    /// RTP and RTCP packets handed out.
    pub packets_sent: u64,
    /// Bytes of them, with headers and SRTP tags.
    pub bytes_sent: u64,
    /// Datagrams that were not authentic.
    pub rejected: u64,
    /// Picture losses that viewers reported (PLI, FIR).
    pub keyframe_requests: u64,
    /// Viewers that moved to another address, or from UDP to TCP and back.
    pub moves: u64,
    /// Packets that viewers reported as lost.
    pub packets_lost: u64,
    /// Packets that viewers asked for again (NACK).
    pub nacks: u64,
    /// Of these, those that were sent again.
    pub repairs: u64,
    /// Of these, those that were refused: too often, too early, or too many.
    pub repairs_refused: u64,
    /// Of these, those that are not kept any more, or never were.
    pub repairs_missed: u64,
    /// Frames skipped for viewers that were too slow.
    pub frames_skipped: u64,
    /// Viewers whose line is too thin for their stream. Up to a twentieth of a second old.
    pub viewers_limited: u64,
    /// Frames not sent to a viewer whose answer has no such codec.
    pub frames_not_taken: u64,
    /// Packets of voices not passed on to a viewer: they came twice, or too late for a number.
    pub packets_too_late: u64,
    /// Packets refused by the cipher's index check. Always 0: the invariant of [`crate::srtp`].
    pub seal_errors: u64,
    /// Attached viewers.
    pub viewers: u64,
}

impl FanoutFigures {
    pub(super) fn count(&mut self, tally: Tally) {
        self.nacks += tally.nacked;
        self.repairs += tally.repaired;
        self.repairs_refused += tally.refused;
        self.repairs_missed += tally.missed;
        self.frames_skipped += tally.frames_skipped;
        self.packets_too_late += tally.packets_too_late;
    }
}
