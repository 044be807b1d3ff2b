//! One way of a path between a viewer and the server: delay, jitter, loss, repetition, disorder.

use crate::clock::SimTime;
use crate::random::Random;

/// Loss up to which every packet has to be repaired, each way.
const REPAIRED_PPM_MAX: u64 = 50_000;
/// A server keeps packets for two seconds, and a packet may be asked for several times in it.
const REPAIRED_DELAY_US_MAX: u64 = 40_000;

/// What a path does to datagrams.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path {
    pub(crate) delay_us: u64,
    /// Added by chance to each datagram, up to this.
    pub(crate) jitter_us: u64,
    pub(crate) loss_ppm: u64,
    pub(crate) repeat_ppm: u64,
    /// A datagram may overtake another.
    pub(crate) disorder: bool,
    /// Nothing passes in between.
    pub(crate) blackouts: Vec<(SimTime, SimTime)>,
}

impl Path {
    /// Whether everything arrives that is sent.
    pub(crate) fn is_lossless(&self) -> bool {
        self.loss_ppm == 0 && self.blackouts.is_empty()
    }

    /// Whether packets that are asked for again come in time: it loses few, and the way is short.
    pub(crate) fn is_repairable(&self) -> bool {
        let loses_few = (1..REPAIRED_PPM_MAX).contains(&self.loss_ppm);
        loses_few && self.blackouts.is_empty() && self.delay_us_max() <= REPAIRED_DELAY_US_MAX
    }

    /// The longest that a datagram takes.
    pub(crate) const fn delay_us_max(&self) -> u64 {
        self.delay_us + self.jitter_us
    }
}

/// One direction of a [`Path`].
#[derive(Debug)]
pub(crate) struct Link {
    path: Path,
    random: Random,
    newest_arrival: SimTime,
}

impl Link {
    pub(crate) const fn new(path: Path, random: Random) -> Self {
        Self { path, random, newest_arrival: SimTime(0) }
    }

    /// When the datagram that leaves at `now` arrives: never, once or twice.
    pub(crate) fn arrivals(&mut self, now: SimTime) -> impl Iterator<Item = SimTime> + use<> {
        let dark = self.path.blackouts.iter().any(|(from, to)| (*from..*to).contains(&now));
        let lost = self.random.ppm(self.path.loss_ppm) || dark;
        let first = (!lost).then(|| self.arrival(now));
        let repeated = self.random.ppm(self.path.repeat_ppm) && !lost;
        let second = repeated.then(|| self.arrival(now));
        first.into_iter().chain(second)
    }

    fn arrival(&mut self, now: SimTime) -> SimTime {
        let mut at = now + self.path.delay_us + self.random.between(0, self.path.jitter_us);
        if !self.path.disorder {
            at = at.max(self.newest_arrival);
        }
        self.newest_arrival = self.newest_arrival.max(at);
        at
    }
}
