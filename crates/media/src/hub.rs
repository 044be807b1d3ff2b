//! One stream and who watches it: the cached group of pictures, the frames that repairs are made
//! of, and the viewers' places.
//!
//! Holds no viewer's state, only where it is found: the fan-out owns the viewers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cadence::Cadence;
use crate::estimate::RateMeter;
use crate::frame::{MediaKind, PacketisedFrame};
use crate::gop::{self, GopCache};
use crate::rtx::FrameRing;

/// A worker asks for a keyframe of a stream at most this often, however many of its viewers need one; the
/// engine bounds what all workers ask together.
const KEYFRAME_REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// One stream inside one worker.
#[derive(Debug)]
pub(crate) struct Hub {
    gop: GopCache,
    /// When a viewer was last given the cached group.
    given_at: Option<Instant>,
    /// Frames of groups that are cached no more since viewers were given them. They were sent as late as
    /// that, however old they are. One group of the largest size fits; those that were begun since are
    /// in the ring of pictures for the greater part.
    given: FrameRing,
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

impl Default for Hub {
    fn default() -> Self {
        Self {
            gop: GopCache::default(),
            given_at: None,
            given: FrameRing::bounded(gop::MAX_BYTES),
            pictures: FrameRing::default(),
            sounds: FrameRing::default(),
            rate: RateMeter::default(),
            newest_at: None,
            viewers: Vec::new(),
            arriving: Vec::new(),
            cadence: Cadence::default(),
            keyframe_requested_at: None,
        }
    }
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
                let given_up = self.gop.handle_frame(frame);
                self.keep_given(&given_up);
                self.pictures.push(frame, now);
            }
        }
        self.given.expire(now);
    }

    /// The group is cached no more, but may have been sent a moment ago.
    fn keep_given(&mut self, group: &[Arc<PacketisedFrame>]) {
        if group.is_empty() {
            return;
        }
        if let Some(at) = self.given_at.take() {
            group.iter().for_each(|frame| self.given.push(frame, at));
        }
    }

    /// Time passed, maybe without frames.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.given.expire(now);
    }

    /// A frame of the last moments or of a group that was cached in them, for a repair.
    pub(crate) fn find(&self, serial: u64) -> Option<&Arc<PacketisedFrame>> {
        let cached = || {
            let group = self.gop.frames();
            let at = group.binary_search_by_key(&serial, |frame| frame.serial()).ok()?;
            group.get(at)
        };
        let ring = self.pictures.find(serial).or_else(|| self.sounds.find(serial));
        ring.or_else(cached).or_else(|| self.given.find(serial))
    }

    /// Of older frames than this nothing can be repaired.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let cached = self.gop.frames().first().map(|frame| frame.serial());
        let rings = [&self.pictures, &self.sounds, &self.given];
        rings.into_iter().filter_map(FrameRing::oldest).chain(cached).min()
    }

    /// What the stream takes on the wire in bits a second; `None` in its first second.
    pub(crate) fn bits_per_second(&self) -> Option<u64> {
        self.rate.bits_per_second()
    }

    /// The frames since the last keyframe; empty while there is no whole group.
    pub(crate) fn group(&self) -> &[Arc<PacketisedFrame>] {
        self.gop.frames()
    }

    /// The same for a viewer, and how long ago the newest picture came. They can be repaired for a while
    /// from here on, also when the next keyframe comes at once.
    pub(crate) fn give_group(&mut self, now: Instant) -> (&[Arc<PacketisedFrame>], Duration) {
        if !self.gop.frames().is_empty() {
            self.given_at = Some(now);
        }
        (self.gop.frames(), self.age(now))
    }

    /// How long ago the newest picture came.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.newest_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// The source is gone.
    pub(crate) fn handle_interruption(&mut self) {
        let given_up = self.gop.clear();
        self.keep_given(&given_up);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Codec, Frame, NtpTime};
    use crate::packetise::packetise;
    use crate::rtx::RING_TIME;

    const FRAME_TIME: Duration = Duration::from_millis(40);

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn epoch() -> Instant {
        Instant::now()
    }

    fn picture(keyframe: bool, discontinuity: bool) -> Arc<PacketisedFrame> {
        Arc::new(packetise(&Frame {
            forwarded: None,
            codec: Codec::H264,
            ticks: 0,
            captured: NtpTime(0),
            keyframe,
            discontinuity,
            units: vec![vec![if keyframe { 0x65 } else { 0x41 }; 1_000].into()],
        }))
    }

    /// A hub with a group of 10 s, its keyframe's serial, and when the next frame is due.
    fn with_long_group() -> (Hub, u64, Instant) {
        let (mut hub, mut now) = (Hub::default(), epoch());
        let first = picture(true, false);
        hub.handle_frame(&first, now);
        for _ in 1..250 {
            now += FRAME_TIME;
            hub.handle_frame(&picture(false, false), now);
        }
        (hub, first.serial(), now + FRAME_TIME)
    }

    #[test]
    fn a_group_is_kept_for_repairs_for_as_long_after_it_was_given_as_a_live_frame() {
        let ends: [fn(&mut Hub, Instant); 3] = [
            |hub, now| hub.handle_frame(&picture(true, false), now),
            |hub, now| hub.handle_frame(&picture(false, true), now),
            |hub, _| hub.handle_interruption(),
        ];
        for end in ends {
            let (mut hub, first, now) = with_long_group();
            assert_eq!(hub.give_group(now).0.len(), 250);
            end(&mut hub, now + FRAME_TIME);
            hub.handle_frame(&picture(true, false), now + RING_TIME);
            assert!(hub.find(first).is_some());
            assert_eq!(hub.oldest(), Some(first), "the record of a viewer needs it");
            hub.handle_timeout(now + RING_TIME + FRAME_TIME);
            assert!(hub.find(first).is_none());
            assert!(hub.oldest() > Some(first));
        }
    }

    #[test]
    fn however_many_want_a_keyframe_the_source_is_asked_once_an_interval() {
        let (mut hub, now) = (Hub::default(), epoch());
        let step_time = KEYFRAME_REQUEST_INTERVAL / 100;
        let asked = (0..250).filter(|step| hub.wants_keyframe(now + *step * step_time)).count();
        assert_eq!(asked, 3, "at the beginning, and 1 and 2 intervals later");
    }

    #[test]
    fn a_group_that_nobody_was_given_lately_goes_with_the_next_keyframe() {
        let (mut hub, first, now) = with_long_group();
        hub.handle_frame(&picture(true, false), now);
        assert!(hub.find(first).is_none());

        let (mut hub, first, now) = with_long_group();
        hub.give_group(now - 2 * RING_TIME);
        hub.handle_frame(&picture(true, false), now);
        assert!(hub.find(first).is_none());
        assert_eq!(hub.given.oldest(), None);
    }
}
