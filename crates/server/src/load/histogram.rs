//! How often which time was measured, by many threads at once: 12 % wide steps from 1 µs to an hour.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Steps within each doubling.
const STEPS: u32 = 8;
/// Doublings: 2^32 µs is over an hour.
const DOUBLINGS: u32 = 32;

/// Counts of times.
#[derive(Debug)]
pub(super) struct Histogram(Box<[AtomicU64]>);

impl Histogram {
    pub(super) fn new() -> Self {
        Self((0..DOUBLINGS * STEPS).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn note(&self, time: Duration) {
        self.0[place(time)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The time that `share` of those measured do not exceed, to the step above; `None` of none.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((count as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let place = self.0.iter().position(|counted| {
            below += counted.load(Ordering::Relaxed);
            below >= rank
        });
        place.map(upper_end)
    }
}

/// Three bits below the highest one choose the step.
fn place(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    let doubling = micros.ilog2().min(DOUBLINGS - 1);
    let step = ((u128::from(micros) * u128::from(STEPS)) >> doubling) - u128::from(STEPS);
    (doubling * STEPS) as usize + step.min(u128::from(STEPS - 1)) as usize
}

fn upper_end(place: usize) -> Duration {
    let (doubling, step) = (place as u32 / STEPS, place as u32 % STEPS);
    Duration::from_micros(((1_u64 << doubling) * u64::from(STEPS + step + 1)) / u64::from(STEPS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), None);
        for ms in 1..=100 {
            histogram.note(Duration::from_millis(ms));
        }
        let ms = |share| histogram.quantile(share).unwrap().as_secs_f64() * 1e3;
        assert!((50.0..57.0).contains(&ms(0.5)) && (99.0..113.0).contains(&ms(0.99)));
    }

    proptest! {
        #[test]
        fn every_time_is_counted_a_step_below_what_is_told(micros in 8_u64..1 << 32) {
            let histogram = Histogram::new();
            histogram.note(Duration::from_micros(micros));
            let told = histogram.quantile(1.0).unwrap().as_micros() as u64;
            prop_assert!(told > micros && told <= micros + micros / 8 + 1, "{} told as {}", micros, told);
        }

        #[test]
        fn any_time_has_a_place(micros: u64) {
            Histogram::new().note(Duration::from_micros(micros));
        }
    }
}
