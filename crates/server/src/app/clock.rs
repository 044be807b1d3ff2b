//! One clock for the engine: the monotonic one, placed on the wall clock once.

use std::time::{Duration, Instant, SystemTime};

use control::Timestamp;

/// Reads the time. Wall-clock steps after the start do not move it, so that setting the system's
/// time ends no lease and keeps none alive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    instant: Instant,
    wall: SystemTime,
    wall_ms: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let wall = SystemTime::now();
        let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        // The wall clock at a whole millisecond, as the engine counts.
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(wall_ms);
        Self { instant: Instant::now(), wall, wall_ms }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.timestamp(Instant::now())
    }

    /// Rounded down to a millisecond; moments before the start are the start.
    pub(super) fn timestamp(&self, instant: Instant) -> Timestamp {
        Timestamp::from_millis(self.wall_ms) + instant.saturating_duration_since(self.instant)
    }

    /// The first instant that [`Clock::timestamp`] maps to `timestamp`.
    pub(super) fn instant(&self, timestamp: Timestamp) -> Instant {
        self.instant + timestamp.saturating_since(Timestamp::from_millis(self.wall_ms))
    }

    pub(super) fn system_time(&self, timestamp: Timestamp) -> SystemTime {
        self.wall + timestamp.saturating_since(Timestamp::from_millis(self.wall_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waking_at_an_instant_finds_its_timestamp_due() {
        let clock = Clock::start();
        for ms in [0, 1, 14_000, 30_000] {
            let due = clock.timestamp(clock.instant) + Duration::from_millis(ms);
            assert_eq!(clock.timestamp(clock.instant(due)), due);
            assert!(clock.timestamp(clock.instant(due) - Duration::from_nanos(1)) <= due);
            let wall = clock.system_time(due).duration_since(SystemTime::UNIX_EPOCH);
            assert_eq!(wall.expect("after 1970").as_millis(), u128::from(due.as_millis()));
        }
    }
}
