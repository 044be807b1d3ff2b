//! When a stream's next keyframe is to be expected.
//!
//! A guess from the last two. Nothing depends on its being right: it decides which of two good ways is
//! taken.

use std::time::{Duration, Instant};

use crate::frame::{MediaKind, PacketisedFrame};

/// What a stream's past keyframes tell of its next one.
#[derive(Debug, Default)]
pub(crate) struct Cadence {
    newest_at: Option<Instant>,
    /// Between the last two of one run of the source.
    interval: Option<Duration>,
}

impl Cadence {
    /// The next frame of either track.
    pub(crate) fn handle_frame(&mut self, frame: &PacketisedFrame, now: Instant) {
        if frame.codec.kind() == MediaKind::Video && frame.keyframe {
            let interval = self.newest_at.map(|at| now.saturating_duration_since(at));
            self.interval = interval.filter(|_| !frame.discontinuity);
            self.newest_at = Some(now);
        }
    }

    /// The source is gone: the one that comes may be another.
    pub(crate) fn handle_interruption(&mut self) {
        *self = Self::default();
    }

    /// How long until the next keyframe, if it keeps its interval; zero where it is late. `None`
    /// before two of them.
    pub(crate) fn next_keyframe_in(&self, now: Instant) -> Option<Duration> {
        let due = self.newest_at? + self.interval?;
        Some(due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Codec, Frame, NtpTime};
    use crate::packetise::packetise;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn epoch() -> Instant {
        Instant::now()
    }

    fn frame(keyframe: bool, discontinuity: bool) -> PacketisedFrame {
        packetise(&Frame {
            forwarded: None,
            codec: Codec::H264,
            ticks: 0,
            captured: NtpTime(0),
            keyframe,
            discontinuity,
            units: vec![vec![0x41; 1_000].into()],
        })
    }

    #[test]
    fn the_next_keyframe_is_expected_at_the_interval_of_the_last_two() {
        let (start, mut cadence) = (epoch(), Cadence::default());
        let at = |ms| start + Duration::from_millis(ms);
        cadence.handle_frame(&frame(true, true), at(0));
        assert_eq!(cadence.next_keyframe_in(at(100)), None);
        cadence.handle_frame(&frame(false, false), at(1_000));
        cadence.handle_frame(&frame(true, false), at(2_000));
        assert_eq!(cadence.next_keyframe_in(at(2_500)), Some(Duration::from_millis(1_500)));
        assert_eq!(cadence.next_keyframe_in(at(9_000)), Some(Duration::ZERO), "it is late");
        cadence.handle_frame(&frame(true, true), at(9_000));
        assert_eq!(cadence.next_keyframe_in(at(9_000)), None, "another run, another interval");
        cadence.handle_frame(&frame(true, false), at(9_500));
        cadence.handle_interruption();
        assert_eq!(cadence.next_keyframe_in(at(9_600)), None);
    }
}
