//! A track's timestamps on their way to [`media::Frame`]: never negative, and told where they break.

use media::Codec;

/// Added to a camera's timestamps, which may go below zero when they jump back. A multiple of 2^32,
/// so that the lower half is still what the camera sends.
const TICKS_ORIGIN: i64 = 1 << 40;

/// A step in timestamps over this is a new timeline. Pictures come at least every ten seconds, or
/// the attempt ends.
const STEP_SECONDS_MAX: i64 = 15;

/// Follows a track's timestamps as they leave.
#[derive(Debug)]
pub(super) struct Steps {
    step_max: i64,
    last: Option<i64>,
}

impl Steps {
    /// For a track of this codec.
    pub(super) fn new(codec: Codec) -> Self {
        Self { step_max: STEP_SECONDS_MAX * i64::from(codec.clock_rate()), last: None }
    }

    /// The timestamp as [`media::Frame::ticks`] wants it, and whether it is unrelated to the one before.
    pub(super) fn next(&mut self, ticks: i64) -> (u64, bool) {
        let broken =
            self.last.is_none_or(|last| !(0..=self.step_max).contains(&ticks.saturating_sub(last)));
        self.last = Some(ticks);
        (u64::try_from(ticks.saturating_add(TICKS_ORIGIN)).unwrap_or(0), broken)
    }
}
