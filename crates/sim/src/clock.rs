//! Virtual time. Both clocks of the cores, the monotonic and the wall clock, are read from it.

use std::ops::Add;
use std::time::{Duration, Instant};

use control::Timestamp;
use media::NtpTime;

/// The wall clock at the start of every run, in milliseconds since the Unix epoch.
const EPOCH_MS: u64 = 1_795_000_000_000;

/// Microseconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct SimTime(pub(crate) u64);

impl SimTime {
    pub(crate) const fn from_ms(ms: u64) -> Self {
        Self(ms * 1000)
    }

    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Later by microseconds.
impl Add<u64> for SimTime {
    type Output = Self;

    fn add(self, micros: u64) -> Self {
        Self(self.0 + micros)
    }
}

/// Turns virtual time into what the cores are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) const fn new(start: Instant) -> Self {
        Self { start }
    }

    pub(crate) fn instant(self, at: SimTime) -> Instant {
        self.start + Duration::from_micros(at.0)
    }

    /// Rounded up, so that whoever is due at `instant` is due at the result.
    pub(crate) fn of_instant(self, instant: Instant) -> SimTime {
        let since = instant.saturating_duration_since(self.start);
        SimTime(since.as_nanos().div_ceil(1000) as u64)
    }

    pub(crate) const fn timestamp(self, at: SimTime) -> Timestamp {
        Timestamp::from_millis(EPOCH_MS + at.0 / 1000)
    }

    pub(crate) const fn of_timestamp(self, timestamp: Timestamp) -> SimTime {
        SimTime::from_ms(timestamp.as_millis().saturating_sub(EPOCH_MS))
    }

    pub(crate) const fn ntp(self, at: SimTime) -> NtpTime {
        NtpTime::from_unix_micros(EPOCH_MS * 1000 + at.0)
    }
}
