//! When the next frame is due, which one is a keyframe, and what time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::encoder::PictureKind;

/// Steps of the wall clock below this are left alone: measuring it takes that long under load.
const CLOCK_STEP: Duration = Duration::from_millis(50);

/// At most one keyframe a second on request, however many viewers ask.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(1);

/// Counts out moments at a fixed rate from a start, without drift.
#[derive(Debug)]
pub(super) struct Pacer {
    start: Instant,
    rate: u32,
    next: u64,
}

/// One of a pacer's moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Counted from 0 at the start; skipped ones count.
    pub(super) index: u64,
    pub(super) at: Instant,
}

impl Pacer {
    /// `rate` moments a second, the first one at `start`.
    pub(super) fn new(start: Instant, rate: u32) -> Self {
        Self { start, rate: rate.max(1), next: 0 }
    }

    /// When the next moment is.
    pub(super) fn deadline(&self) -> Instant {
        self.at(self.next)
    }

    /// The moment that is due at `now`, once; `None` before it. Of several the last one: a source
    /// that was late goes on with the present instead of sending the past in a burst.
    pub(super) fn take(&mut self, now: Instant) -> Option<Moment> {
        if now < self.deadline() {
            return None;
        }
        let passed = now.saturating_duration_since(self.start);
        let last = passed.as_nanos() * u128::from(self.rate) / 1_000_000_000;
        // Rounding may put the last one just before the one that is due.
        let index = u64::try_from(last).unwrap_or(u64::MAX - 1).max(self.next);
        self.next = index + 1;
        Some(Moment { index, at: self.at(index) })
    }

    fn at(&self, index: u64) -> Instant {
        let (seconds, rest) = (index / u64::from(self.rate), index % u64::from(self.rate));
        let nanos = rest * 1_000_000_000 / u64::from(self.rate);
        self.start + Duration::from_secs(seconds) + Duration::from_nanos(nanos)
    }
}

/// Decides which pictures are keyframes.
#[derive(Debug)]
pub(super) struct Group {
    length: u32,
    /// Pictures since the last keyframe, that one included; `None` before the first.
    since: Option<(u32, Instant)>,
    wanted: bool,
}

impl Group {
    /// A keyframe every `length` pictures.
    pub(super) fn new(length: u32) -> Self {
        Self { length: length.max(1), since: None, wanted: false }
    }

    /// A viewer cannot decode.
    pub(super) fn want_keyframe(&mut self) {
        self.wanted = true;
    }

    /// What the next picture is to be.
    pub(super) fn next(&mut self, now: Instant) -> PictureKind {
        if let Some((pictures, keyframe_at)) = &mut self.since {
            let rested = now.saturating_duration_since(*keyframe_at) >= KEYFRAME_INTERVAL;
            if *pictures < self.length && !(self.wanted && rested) {
                *pictures += 1;
                return PictureKind::Delta;
            }
        }
        self.since = Some((1, now));
        self.wanted = false;
        PictureKind::Key
    }
}

/// The wall clock, read through the monotonic one so that it runs evenly.
#[derive(Debug)]
pub(super) struct Clock {
    anchor: Instant,
    unix: Duration,
}

impl Clock {
    pub(super) fn new(now: Instant, wall: SystemTime) -> Self {
        Self { anchor: now, unix: since_epoch(wall) }
    }

    /// Follows the wall clock where it was set to another time.
    pub(super) fn follow(&mut self, now: Instant, wall: SystemTime) {
        let read = since_epoch(wall);
        if self.unix(now).abs_diff(read) > CLOCK_STEP {
            *self = Self { anchor: now, unix: read };
        }
    }

    /// Microseconds since the Unix epoch.
    pub(super) fn unix_micros(&self, at: Instant) -> u64 {
        u64::try_from(self.unix(at).as_micros()).unwrap_or(u64::MAX)
    }

    fn unix(&self, at: Instant) -> Duration {
        let before = self.anchor.saturating_duration_since(at);
        (self.unix + at.saturating_duration_since(self.anchor)).saturating_sub(before)
    }
}

/// A clock before 1970 counts as 1970.
fn since_epoch(wall: SystemTime) -> Duration {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_pacer_does_not_drift() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 15);
        for index in 0..15 * 3600 {
            assert_eq!(pacer.take(pacer.deadline() - Duration::from_nanos(1)), None);
            // Each one a little late.
            let moment = pacer.take(pacer.deadline() + (index % 9) as u32 * MS).unwrap();
            assert_eq!(moment.index, index);
        }
        assert_eq!(pacer.deadline(), start + Duration::from_secs(3600));
    }

    #[test]
    fn a_late_pacer_skips_to_the_present() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 10);
        let moment = pacer.take(start + 1234 * MS);
        assert_eq!(moment, Some(Moment { index: 12, at: start + 1200 * MS }));
        assert_eq!(pacer.take(start + 1234 * MS), None);
        assert_eq!(pacer.deadline(), start + 1300 * MS);
    }

    #[test]
    fn keyframes_come_at_the_length_of_the_group_and_on_request_once_a_second() {
        let start = Instant::now();
        let mut group = Group::new(30);
        let keyframes: Vec<_> = (0..80_u32)
            .filter(|index| {
                if [5, 6, 7, 20, 50].contains(index) {
                    group.want_keyframe();
                }
                group.next(start + *index * 100 * MS) == PictureKind::Key
            })
            .collect();
        // Asked at 5, granted at 10; asked at 20 and 50 and granted at once; 30 pictures on at 80.
        assert_eq!(keyframes, [0, 10, 20, 50]);
        assert_eq!(group.next(start + 8000 * MS), PictureKind::Key);
    }

    #[test]
    fn the_clock_is_even_until_it_is_set() {
        let start = Instant::now();
        let wall = UNIX_EPOCH + Duration::from_secs(1_000);
        let mut clock = Clock::new(start, wall);
        clock.follow(start + 100 * MS, wall + 120 * MS);
        assert_eq!(clock.unix_micros(start + 200 * MS), 1_000_200_000);
        assert_eq!(clock.unix_micros(start - 200 * MS), 999_800_000);
        clock.follow(start + 300 * MS, wall + Duration::from_secs(3_600));
        assert_eq!(clock.unix_micros(start + 300 * MS), 4_600_000_000);
    }
}
