//! What a speaker and its listeners share: when each packet left.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Packets whose time of leaving is remembered: 80 s, and none takes one second to arrive.
const REMEMBERED: usize = 4_096;

/// One voice, from its first packet on.
pub(super) struct Stage {
    /// Of packet n at n modulo [`REMEMBERED`]: microseconds since 1970, of the clock that the kernel
    /// dates arrivals by.
    left: Box<[AtomicU64]>,
    is_timed: AtomicBool,
}

impl Stage {
    pub(super) fn new() -> Self {
        let left = (0..REMEMBERED).map(|_| AtomicU64::new(0)).collect();
        Self { left, is_timed: AtomicBool::new(false) }
    }

    /// Packet `number` leaves at this moment.
    pub(super) fn note(&self, number: u64) {
        self.left[number as usize % REMEMBERED].store(micros(SystemTime::now()), Ordering::Release);
    }

    /// How long ago it left, seen from its arrival; `None` while nothing is timed.
    pub(super) fn way_of(&self, number: u64, arrival: SystemTime) -> Option<Duration> {
        if !self.is_timed.load(Ordering::Relaxed) {
            return None;
        }
        let left = self.left[number as usize % REMEMBERED].load(Ordering::Acquire);
        (left > 0).then(|| Duration::from_micros(micros(arrival).saturating_sub(left)))
    }

    /// From now on ways are timed.
    pub(super) fn begin(&self) {
        self.is_timed.store(true, Ordering::Relaxed);
    }

    /// They are no more.
    pub(super) fn end(&self) {
        self.is_timed.store(false, Ordering::Relaxed);
    }
}

fn micros(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
