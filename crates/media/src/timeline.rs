//! From a source's clock to one viewer's RTP timestamps.
//!
//! A viewer's timestamps start at a random value (RFC 3550 §5.1), rise with the source, jump over
//! nothing when the source restarts with another clock, and may be compressed for the cached group
//! of pictures, so that its last frame is "now".

use std::time::{Duration, Instant};

/// The RTP timestamps of one track of one viewer. Kept in 64 bits, wrapping on the wire only, unless
/// a source runs backwards without saying so: then they wrap here, and nothing worse happens.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    clock_rate: u32,
    /// Added to source ticks, modulo 2^64.
    offset: u64,
    /// The newest timestamp given out and when; `None` before the first.
    newest: Option<(u64, Instant)>,
    /// The first timestamp.
    start: u64,
}

impl Timeline {
    /// Timestamps from `start` on, in ticks of `clock_rate` a second.
    pub fn new(start: u32, clock_rate: u32) -> Self {
        // One wrap is added so that compressed timestamps before the start stay positive.
        Self { clock_rate, offset: 0, newest: None, start: u64::from(start) + (1 << 32) }
    }

    /// Ticks a second.
    pub fn clock_rate(&self) -> u32 {
        self.clock_rate
    }

    /// The newest timestamp given out, and when.
    pub fn newest(&self) -> Option<(u64, Instant)> {
        self.newest
    }

    /// The timestamp of a frame with these source ticks.
    pub fn map(&mut self, ticks: u64, now: Instant) -> u64 {
        if self.newest.is_none() {
            self.anchor(ticks, now);
        }
        let timestamp = match self.newest {
            Some((newest, _)) => self.above(newest, ticks, now),
            None => ticks.wrapping_add(self.offset),
        };
        self.newest = Some((timestamp, now));
        timestamp
    }

    /// The timestamp of a packet that is passed on, at the source's very distance whatever that is.
    pub fn follow(&mut self, ticks: u64, now: Instant) -> u64 {
        if self.newest.is_none() {
            self.anchor(ticks, now);
        }
        let timestamp = self.follow_late(ticks);
        self.newest = Some((timestamp, now));
        timestamp
    }

    /// The same of one that others overtook on their way.
    pub fn follow_late(&self, ticks: u64) -> u64 {
        ticks.wrapping_add(self.offset)
    }

    /// The timestamp of `ticks`, brought above the newest one. Behind a compressed group the source's
    /// jitter may bring a frame that lies a little before the group's end; what lies more than a
    /// second before it comes from a clock that was set back.
    fn above(&mut self, newest: u64, ticks: u64, now: Instant) -> u64 {
        let mapped = ticks.wrapping_add(self.offset);
        // Both wrap, so which is ahead shows in the sign of their distance.
        let behind = newest.wrapping_sub(mapped).cast_signed();
        if behind < 0 {
            return mapped;
        }
        if behind > i64::from(self.clock_rate) {
            self.anchor(ticks, now);
            return ticks.wrapping_add(self.offset);
        }
        newest.wrapping_add(1)
    }

    /// The source's clock has no relation to the earlier one: `ticks` becomes the moment `now`.
    pub fn anchor(&mut self, ticks: u64, now: Instant) {
        let target = match self.newest {
            Some((timestamp, at)) => {
                let passed = self.ticks_of(now.saturating_duration_since(at));
                timestamp.wrapping_add(passed.max(1))
            }
            None => self.start,
        };
        self.offset = target.wrapping_sub(ticks);
    }

    /// Timestamps for `count` cached frames, one millisecond apart and rising; the last of them,
    /// with source ticks `last_ticks`, is "now", although it came `age` ago. What follows comes at the
    /// source's distance from when it should have been shown: a viewer that joins between two frames
    /// plays no later than one that was there.
    pub fn compress(
        &mut self,
        count: usize,
        last_ticks: u64,
        age: Duration,
        now: Instant,
    ) -> impl Iterator<Item = u64> + use<> {
        let step = u64::from(self.clock_rate / 1000);
        let span = step * (count as u64).saturating_sub(1);
        let last = match self.newest {
            Some((timestamp, at)) => {
                let passed = self.ticks_of(now.saturating_duration_since(at));
                timestamp.wrapping_add(passed.max(step + span))
            }
            None => self.start + span,
        };
        self.offset = last.wrapping_sub(last_ticks).wrapping_sub(self.ticks_of(age));
        self.newest = Some((last, now));
        (0..count as u64).map(move |index| last.wrapping_sub(span).wrapping_add(index * step))
    }

    /// What the clock of this viewer's track shows at `now`, going on from the newest frame.
    pub fn at(&self, now: Instant) -> Option<u64> {
        let (timestamp, at) = self.newest?;
        Some(timestamp.wrapping_add(self.ticks_of(now.saturating_duration_since(at))))
    }

    fn ticks_of(&self, duration: Duration) -> u64 {
        (duration.as_micros() as u64).saturating_mul(u64::from(self.clock_rate)) / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A moment to count from: the cores may not ask for one outside of tests.
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn epoch() -> Instant {
        Instant::now()
    }

    #[test]
    fn compressed_frames_end_where_live_frames_go_on() {
        let start = epoch();
        let mut timeline = Timeline::new(u32::MAX - 10, 90_000);
        let cached: Vec<u64> = timeline.compress(3, 50_000, Duration::ZERO, start).collect();
        assert_eq!(cached[2] - cached[0], 180);
        let live = timeline.map(56_000, start + Duration::from_millis(66));
        assert_eq!(live - cached[2], 6_000);
    }

    #[test]
    fn a_group_that_waited_delays_nothing_that_follows() {
        let joined = epoch();
        let mut timeline = Timeline::new(7, 90_000);
        let age = Duration::from_millis(800);
        let last = timeline.compress(1, 50_000, age, joined).last().unwrap();
        let next = joined + Duration::from_millis(200);
        assert_eq!(timeline.map(140_000, next) - last, 18_000, "a second apart, 200 ms from now");
        let last = timeline.compress(1, 140_000, Duration::from_millis(70), next).last().unwrap();
        let early = timeline.map(146_000, next + Duration::from_millis(1));
        assert_eq!(early - last, 1, "jitter takes no timestamp back");
    }

    #[test]
    fn a_restart_goes_on_by_the_wall_clock() {
        let start = epoch();
        let mut timeline = Timeline::new(7, 90_000);
        let before = timeline.map(1_000_000, start);
        let restarted = start + Duration::from_secs(3);
        timeline.anchor(5, restarted);
        assert_eq!(timeline.map(5, restarted) - before, 270_000);
    }

    #[test]
    fn a_source_that_runs_back_without_saying_so_is_followed() {
        let start = epoch();
        let mut timeline = Timeline::new(7, 90_000);
        let before = timeline.map(1 << 50, start);
        assert_eq!(timeline.map(0, start), before + 1);
        let later = start + Duration::from_secs(u64::from(u32::MAX));
        assert!(timeline.at(later).is_some());
        assert_eq!(timeline.compress(600, 5, Duration::ZERO, later).count(), 600);
        timeline.anchor(9, later);
        timeline.map(9, later);
    }

    proptest! {
        /// Whatever happens to the source, a viewer's timestamps only rise.
        #[test]
        fn timestamps_rise(start: u32, first: u32, events in proptest::collection::vec((0u8..4, 1u64..200_000), 1..60)) {
            let mut now = epoch();
            let mut timeline = Timeline::new(start, 90_000);
            let mut ticks = u64::from(first);
            let mut newest = timeline.map(ticks, now);
            for (kind, step) in events {
                now += Duration::from_micros(step * 100 / 9);
                match kind {
                    0 | 1 => {
                        ticks += step;
                    }
                    2 => {
                        ticks = step;
                        timeline.anchor(ticks, now);
                    }
                    _ => {
                        let (count, age) = (step as usize % 50 + 1, Duration::from_micros(step));
                        for timestamp in timeline.compress(count, ticks, age, now) {
                            prop_assert!(timestamp > newest);
                            newest = timestamp;
                        }
                        ticks += step;
                    }
                }
                let timestamp = timeline.map(ticks, now);
                prop_assert!(timestamp > newest, "{timestamp} after {newest}");
                newest = timestamp;
            }
        }
    }
}
