//! What playing voices as MP3 counts as it happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The figures at one moment. All have only risen since the start, except `listeners` and `encoders`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mp3Figures {
    /// Players.
    pub(crate) listeners: u64,
    /// Encoders that run: voices that somebody plays.
    pub(crate) encoders: u64,
    /// Bytes handed to players' connections, without Shoutcast's metadata.
    pub(crate) bytes_sent: u64,
    /// How often a player took nothing for so long that it was put back to live.
    pub(crate) drops_to_live: u64,
    /// Packets made up, as they were lost.
    pub(crate) packets_lost: u64,
    /// Packets not played, as others had overtaken them.
    pub(crate) packets_late: u64,
    /// Packets not played, as they cannot be decoded.
    pub(crate) packets_broken: u64,
    /// How often a voice paused, or its packets came too late, and silence was put in.
    pub(crate) pauses: u64,
    /// How often some of a voice was left out, so that it is live again.
    pub(crate) skips: u64,
    /// Frames that were not made, as the encoder had no time.
    pub(crate) frames_missed: u64,
}

/// Where they are counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) listeners: Counter,
    pub(super) encoders: Counter,
    pub(super) bytes_sent: Counter,
    pub(super) drops_to_live: Counter,
    pub(super) packets_lost: Counter,
    pub(super) packets_late: Counter,
    pub(super) packets_broken: Counter,
    pub(super) pauses: Counter,
    pub(super) skips: Counter,
    pub(super) frames_missed: Counter,
}

impl Counters {
    pub(super) fn figures(&self) -> Mp3Figures {
        Mp3Figures {
            listeners: self.listeners.value(),
            encoders: self.encoders.value(),
            bytes_sent: self.bytes_sent.value(),
            drops_to_live: self.drops_to_live.value(),
            packets_lost: self.packets_lost.value(),
            packets_late: self.packets_late.value(),
            packets_broken: self.packets_broken.value(),
            pauses: self.pauses.value(),
            skips: self.skips.value(),
            frames_missed: self.frames_missed.value(),
        }
    }
}

/// One figure.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Which of the figures that fall it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Present {
    Listener,
    Encoder,
}

/// One that is there, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Presence {
    counters: Arc<Counters>,
    present: Present,
}

impl Presence {
    pub(super) fn new(counters: Arc<Counters>, present: Present) -> Self {
        let presence = Self { counters, present };
        presence.counter().add(1);
        presence
    }

    fn counter(&self) -> &Counter {
        match self.present {
            Present::Listener => &self.counters.listeners,
            Present::Encoder => &self.counters.encoders,
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.counter().0.fetch_sub(1, Ordering::Relaxed);
    }
}
