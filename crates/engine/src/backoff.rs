//! How long to wait before the next attempt at a source.

use std::time::Duration;

use crate::failure::{Retry, SourceFailure};

/// The longest first wait: a camera that was restarted is back within moments.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait of all for a camera that may come back any moment.
const CAP: Duration = Duration::from_secs(30);
/// A source that was live for longer starts anew with [`FIRST`]; one that flaps does not.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// Failures in a row, and the wait that follows from them.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Failures since the last steady time.
    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets all failures.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// One more failure of a source that was live for `live` before it: how long to wait now.
    pub(crate) fn fail(
        &mut self,
        failure: &SourceFailure,
        live: Duration,
        random: &mut SplitMix,
    ) -> Duration {
        if live > STEADY_AFTER {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        match failure.retry() {
            Retry::Backoff => {
                let doublings = (self.failures - 1).min(16);
                let longest = FIRST.saturating_mul(1 << doublings).min(CAP);
                longest / 2 + random.up_to(longest / 2)
            }
            Retry::Steady { least, spread } => least + random.up_to(spread),
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): one word of state, enough to keep hundreds of cameras
/// from coming back in step. Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From zero to `most`, both included, in whole milliseconds.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        let most_ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX - 1);
        Duration::from_millis(self.next() % (most_ms + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: SourceFailure = SourceFailure::Lost { detail: String::new() };

    #[test]
    fn splitmix_gives_the_published_sequence() {
        let mut random = SplitMix::new(1_234_567);
        let expected =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.next(), random.next(), random.next()], expected);
    }

    #[test]
    fn waits_double_from_one_second_to_thirty_and_differ_by_chance() {
        for seed in 0..50 {
            let mut random = SplitMix::new(seed);
            let mut backoff = Backoff::default();
            for longest_s in [1, 2, 4, 8, 16, 30, 30, 30] {
                let wait = backoff.fail(&LOST, Duration::ZERO, &mut random);
                let longest = Duration::from_secs(longest_s);
                assert!(longest / 2 <= wait && wait <= longest, "{wait:?} of {longest:?}");
            }
        }
        let waits: std::collections::BTreeSet<_> = (0..50)
            .map(|seed| Backoff::default().fail(&LOST, Duration::ZERO, &mut SplitMix::new(seed)))
            .collect();
        assert!(waits.len() > 30, "cameras that failed together come back together: {waits:?}");
    }

    #[test]
    fn only_a_steady_time_starts_the_waits_anew() {
        let mut random = SplitMix::new(7);
        let mut backoff = Backoff::default();
        for _ in 0..6 {
            backoff.fail(&LOST, Duration::from_secs(10), &mut random);
        }
        let flapping = backoff.fail(&LOST, Duration::from_secs(10), &mut random);
        assert!(flapping >= Duration::from_secs(15));
        let steady = backoff.fail(&LOST, Duration::from_millis(10_001), &mut random);
        assert!(steady <= Duration::from_secs(1));
    }

    #[test]
    fn a_wrong_password_is_not_tried_more_than_once_a_minute() {
        let mut random = SplitMix::new(3);
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            let wait = backoff.fail(&SourceFailure::Unauthorized, Duration::ZERO, &mut random);
            assert!(wait >= Duration::from_secs(60) && wait <= Duration::from_secs(66));
        }
    }

    #[test]
    fn what_somebody_must_change_first_is_tried_every_half_minute() {
        let mut random = SplitMix::new(3);
        let failure = SourceFailure::NotFound { path: "/x".to_owned() };
        for _ in 0..100 {
            let wait = Backoff::default().fail(&failure, Duration::ZERO, &mut random);
            assert!(wait >= Duration::from_secs(25) && wait <= Duration::from_secs(30));
        }
    }
}
