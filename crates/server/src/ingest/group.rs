//! How long the groups of pictures of a stream are: what a viewer waits for after a loss.

use std::time::Duration;

use media::{Frame, MediaKind};

/// A group of pictures: from one keyframe to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// Pictures in it, the keyframe included.
    pub(crate) pictures: u32,
    /// By the source's own clock.
    pub(crate) interval: Duration,
}

/// Measures the groups of one stream as its frames come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct GroupMeter {
    /// When the running group's keyframe was taken, in ticks of its codec, and how many pictures there are.
    running: Option<(u64, u32)>,
    last: Option<Group>,
}

impl GroupMeter {
    /// The next frame of any of the stream's tracks.
    pub(crate) fn handle_frame(&mut self, frame: &Frame) {
        if frame.codec.kind() == MediaKind::Video {
            if frame.discontinuity {
                self.running = None;
            }
            self.handle_picture(frame.keyframe, frame.ticks, frame.codec.clock_rate());
        }
    }

    fn handle_picture(&mut self, is_keyframe: bool, ticks: u64, clock_rate: u32) {
        match (&mut self.running, is_keyframe) {
            (Some((since, pictures)), true) => {
                let seconds = ticks.saturating_sub(*since) as f64 / f64::from(clock_rate);
                let interval = Duration::try_from_secs_f64(seconds).unwrap_or_default();
                self.last = Some(Group { pictures: *pictures, interval });
                self.running = Some((ticks, 1));
            }
            (Some((_, pictures)), false) => *pictures = pictures.saturating_add(1),
            (None, true) => self.running = Some((ticks, 1)),
            (None, false) => {}
        }
    }

    /// The newest whole group; `None` before the second keyframe.
    pub(crate) fn last(&self) -> Option<Group> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_counted_from_keyframe_to_keyframe() {
        let mut meter = GroupMeter::default();
        let mut picture = |is_keyframe, ticks| {
            meter.handle_picture(is_keyframe, ticks, 90_000);
            meter.last().map(|group| (group.pictures, group.interval.as_millis()))
        };
        assert_eq!(picture(false, 0), None);
        assert_eq!(picture(true, 45_000), None);
        assert_eq!(picture(false, 90_000), None);
        assert_eq!(picture(true, 135_000), Some((2, 1_000)));
        assert_eq!(picture(true, 180_000), Some((1, 500)), "the newest is told");
        assert_eq!(picture(true, 0), Some((1, 0)), "a clock that went back is no reason to panic");
    }

    #[test]
    fn a_gap_is_no_group() {
        let mut meter = GroupMeter::default();
        let mut frame = |ticks, discontinuity| {
            meter.handle_frame(&Frame {
                forwarded: None,
                codec: media::Codec::H264,
                ticks,
                captured: media::NtpTime(0),
                keyframe: true,
                discontinuity,
                units: Vec::new(),
            });
            meter.last().map(|group| group.interval.as_secs())
        };
        assert_eq!(frame(0, true), None);
        assert_eq!(frame(9_000_000, true), None);
        assert_eq!(frame(9_180_000, false), Some(2));
    }
}
