//! How a stream comes: its bitrate, and when its next keyframe is to be expected.
//!
//! Both are guesses from what came before. Nothing depends on their being right: they decide which of
//! two good ways is taken.

use std::time::{Duration, Instant};

use crate::frame::{MediaKind, PacketisedFrame};

/// The bitrate is a mean over so long. Keyframes come every 1 to 10 s and are several times as large
/// as other frames; over less than some seconds the rate would say which kind came last.
const RATE_WINDOW: Duration = Duration::from_secs(4);

/// What a stream's past frames tell of its next ones.
#[derive(Debug, Default)]
pub(crate) struct Cadence {
    keyframe_at: Option<Instant>,
    /// Between the last two keyframes of one run of the source.
    keyframe_interval: Option<Duration>,
    window_began: Option<Instant>,
    window_bytes: u64,
    bits_per_second: Option<u64>,
}

impl Cadence {
    /// The next frame of either track.
    pub(crate) fn handle_frame(&mut self, frame: &PacketisedFrame, now: Instant) {
        let began = *self.window_began.get_or_insert(now);
        let passed = now.saturating_duration_since(began);
        if passed >= RATE_WINDOW {
            let passed_ms = passed.as_millis() as u64;
            self.bits_per_second = Some(self.window_bytes.saturating_mul(8_000) / passed_ms);
            (self.window_began, self.window_bytes) = (Some(now), 0);
        }
        self.window_bytes += frame.payload_bytes() as u64;
        if frame.codec.kind() == MediaKind::Video && frame.keyframe {
            let interval = self.keyframe_at.map(|at| now.saturating_duration_since(at));
            self.keyframe_interval = interval.filter(|_| !frame.discontinuity);
            self.keyframe_at = Some(now);
        }
    }

    /// The source is gone: the one that comes may be another.
    pub(crate) fn handle_interruption(&mut self) {
        *self = Self { bits_per_second: self.bits_per_second, ..Self::default() };
    }

    /// Payload bits a second of picture and sound, a mean over some seconds that are past. `None`
    /// before the first of them.
    pub(crate) fn bits_per_second(&self) -> Option<u64> {
        self.bits_per_second
    }

    /// How long until the next keyframe, if it keeps its interval; zero where it is late. `None`
    /// before two of them.
    pub(crate) fn next_keyframe_in(&self, now: Instant) -> Option<Duration> {
        let due = self.keyframe_at? + self.keyframe_interval?;
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
    }

    #[test]
    fn the_rate_is_a_mean_over_whole_groups() {
        let (start, mut cadence) = (epoch(), Cadence::default());
        for index in 0..=120 {
            cadence.handle_frame(
                &frame(index % 30 == 0, false),
                start + index * Duration::from_millis(50),
            );
            assert_eq!(cadence.bits_per_second().is_some(), index >= 80);
        }
        assert_eq!(cadence.bits_per_second(), Some(160_000));
        cadence.handle_interruption();
        assert_eq!(cadence.bits_per_second(), Some(160_000), "the best guess there is");
    }
}
