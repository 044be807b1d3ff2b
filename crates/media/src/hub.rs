//! One stream and who watches it: the cached group of pictures, the frames that repairs are made
//! of, and the viewers' places.
//!
//! Holds no viewer's state, only where it is found: the fan-out owns the viewers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cadence::Cadence;
use crate::estimate::RateMeter;
use crate::frame::{MediaKind, PacketisedFrame};
use crate::gop::GopCache;
use crate::rtx::FrameRing;

/// A worker asks for a keyframe of a stream at most this often, however many of its viewers need one; the
/// engine bounds what all workers ask together.
const KEYFRAME_REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// One stream inside one worker.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    gop: GopCache,
    pictures: FrameRing,
    sounds: FrameRing,
    rate: RateMeter,
    /// When the newest picture came.
    newest_at: Option<Instant>,
    viewers: Vec<usize>,
    /// The places of those who play another stream until this one has something to begin with.
    pub(crate) arriving: Vec<usize>,
    /// What its next frames will be like.
    pub(crate) cadence: Cadence,
    keyframe_requested_at: Option<Instant>,
}

impl Hub {
    /// Keeps the frame for those who come later.
    pub(crate) fn handle_frame(&mut self, frame: &Arc<PacketisedFrame>, now: Instant) {
        self.rate.handle_passed(frame.wire_bytes(), now);
        self.cadence.handle_frame(frame, now);
        match frame.codec.kind() {
            MediaKind::Audio => self.sounds.push(frame, now),
            MediaKind::Video => {
                self.newest_at = Some(now);
                if frame.discontinuity {
                    self.gop.clear();
                }
                self.gop.handle_frame(frame);
                self.pictures.push(frame, now);
            }
        }
    }

    /// A frame of the last moments or of the cached group, for a repair.
    pub(crate) fn find(&self, serial: u64) -> Option<&Arc<PacketisedFrame>> {
        let cached = || {
            let group = self.gop.frames();
            let at = group.binary_search_by_key(&serial, |frame| frame.serial()).ok()?;
            group.get(at)
        };
        self.pictures.find(serial).or_else(|| self.sounds.find(serial)).or_else(cached)
    }

    /// Of older frames than this nothing can be repaired.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let cached = self.gop.frames().first().map(|frame| frame.serial());
        [cached, self.pictures.oldest(), self.sounds.oldest()].into_iter().flatten().min()
    }

    /// What the stream takes on the wire in bits a second; `None` in its first second.
    pub(crate) fn bits_per_second(&self) -> Option<u64> {
        self.rate.bits_per_second()
    }

    /// The frames since the last keyframe; empty while there is no whole group.
    pub(crate) fn group(&self) -> &[Arc<PacketisedFrame>] {
        self.gop.frames()
    }

    /// How long ago the newest picture came.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.newest_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// The source is gone.
    pub(crate) fn handle_interruption(&mut self) {
        self.gop.clear();
        self.cadence.handle_interruption();
    }

    /// Neither viewers nor cached pictures: not worth remembering.
    pub(crate) fn is_idle(&self) -> bool {
        self.viewers.is_empty() && self.arriving.is_empty() && self.gop.frames().is_empty()
    }

    /// The places of its viewers, in joining order.
    pub(crate) fn viewers(&self) -> &[usize] {
        &self.viewers
    }

    pub(crate) fn add(&mut self, place: usize) {
        self.viewers.push(place);
    }

    /// Takes a viewer out; returns which one in order it was.
    pub(crate) fn remove(&mut self, place: usize) -> Option<usize> {
        let position = self.viewers.iter().position(|other| *other == place)?;
        self.viewers.remove(position);
        Some(position)
    }

    /// Whether the source is to be asked for a keyframe now; true at most once an interval.
    pub(crate) fn wants_keyframe(&mut self, now: Instant) -> bool {
        let due = self
            .keyframe_requested_at
            .is_none_or(|at| now.saturating_duration_since(at) >= KEYFRAME_REQUEST_INTERVAL);
        if due {
            self.keyframe_requested_at = Some(now);
        }
        due
    }
}
