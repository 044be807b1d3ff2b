//! The server's wall clock as sources use it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Our wall clock as it was when the session began, run by the monotonic clock, so that a server
/// whose clock is set shows viewers no jump.
pub(crate) struct WallClock {
    started: Instant,
    started_micros: i64,
}

impl WallClock {
    /// As it is now.
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_micros: micros(since_epoch) }
    }

    /// Microseconds since the Unix epoch.
    pub(crate) fn unix_micros(&self) -> i64 {
        self.started_micros + micros(self.started.elapsed())
    }

    /// What [`Self::unix_micros`] was at a moment since the start.
    pub(crate) fn unix_micros_at(&self, moment: std::time::Instant) -> i64 {
        let since = Instant::from_std(moment).saturating_duration_since(self.started);
        self.started_micros + micros(since)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2)
}
