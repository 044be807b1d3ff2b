//! An estimate from loss alone.
//!
//! Loss says that a line is too thin, or that it loses: radio does, whatever is sent. What tells
//! them apart is whether sending less helps.
//!
//! ```text
//! Open --much lost, twice--> Limited --nothing lost for long--> Open
//!                               |
//!                               +--as much lost though less is sent--> Lossy --after a while--> Open
//! ```

use std::time::{Duration, Instant};

/// Above this share something is wrong (draft-ietf-rmcat-gcc §6 takes the same).
const MUCH: f32 = 0.10;
/// Below this one nothing is.
const LITTLE: f32 = 0.02;
/// Windows above [`MUCH`] in a row before anything is done.
const WINDOWS_TO_LIMIT: u8 = 2;
/// Windows after which sending less should have helped: what waits in the line's own queue leaves
/// in the first.
const WINDOWS_TO_HELP: u8 = 2;
/// It has helped when no more than this share of the earlier loss is left.
const HELPED: f32 = 0.7;
/// Growth with each window without loss: 8 % a second, as libwebrtc's.
const GROWTH_PERCENT: u64 = 16;
/// Windows without loss after which the line is taken for free again: it has grown to twice.
const WINDOWS_TO_OPEN: u8 = 5;
/// How long loss is left alone after sending less did not help; doubled each time.
const LOSSY_FOR: Duration = Duration::from_secs(30);
/// And how long at most.
const LOSSY_FOR_AT_MOST: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Open {
        bad_windows: u8,
    },
    Limited(Limit),
    /// Loss is left alone.
    Lossy {
        until: Instant,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Limit {
    bits_per_second: u64,
    /// The loss that led to it.
    loss: f32,
    bad_windows: u8,
    good_windows: u8,
}

/// What receiver reports say of the rate.
#[derive(Debug)]
pub(super) struct LossEstimator {
    phase: Phase,
    lossy_for: Duration,
}

impl Default for LossEstimator {
    fn default() -> Self {
        Self { phase: Phase::Open { bad_windows: 0 }, lossy_for: LOSSY_FOR }
    }
}

impl LossEstimator {
    /// `None` while loss limits nothing.
    pub(super) fn bits_per_second(&self) -> Option<u64> {
        match self.phase {
            Phase::Limited(limit) => Some(limit.bits_per_second),
            Phase::Open { .. } | Phase::Lossy { .. } => None,
        }
    }

    /// What reports of some seconds come to: the share lost, 0.0 to 1.0, and what was sent in bits
    /// a second.
    pub(super) fn handle_window(&mut self, loss: f32, sent: u64, now: Instant) {
        let arrived = (sent as f64 * f64::from(1.0 - loss)) as u64;
        self.phase = match self.phase {
            Phase::Open { bad_windows } if loss >= MUCH => {
                if bad_windows + 1 == WINDOWS_TO_LIMIT {
                    Phase::Limited(Limit::to(arrived, loss))
                } else {
                    Phase::Open { bad_windows: bad_windows + 1 }
                }
            }
            Phase::Limited(limit) => self.after_window(limit, arrived, loss, now),
            Phase::Lossy { until } if now < until => self.phase,
            Phase::Open { .. } | Phase::Lossy { .. } => Phase::Open { bad_windows: 0 },
        };
    }

    fn after_window(&mut self, mut limit: Limit, arrived: u64, loss: f32, now: Instant) -> Phase {
        if loss < LITTLE {
            limit.good_windows += 1;
            limit.bits_per_second += limit.bits_per_second * GROWTH_PERCENT / 100;
            if limit.good_windows == WINDOWS_TO_OPEN {
                self.lossy_for = LOSSY_FOR;
                return Phase::Open { bad_windows: 0 };
            }
        }
        if loss >= MUCH {
            limit.bad_windows += 1;
        }
        if limit.bad_windows < WINDOWS_TO_HELP {
            return Phase::Limited(limit);
        }
        // After it had helped, the line has become thinner.
        if limit.good_windows > 0 || loss <= limit.loss * HELPED {
            return Phase::Limited(Limit::to(arrived, loss));
        }
        let until = now + self.lossy_for;
        self.lossy_for = (self.lossy_for * 2).min(LOSSY_FOR_AT_MOST);
        Phase::Lossy { until }
    }
}

impl Limit {
    fn to(bits_per_second: u64, loss: f32) -> Self {
        Self { bits_per_second, loss, bad_windows: 0, good_windows: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: f64 = 2e6;

    /// A line between a sender that keeps to the estimate and a viewer that reports.
    struct Line {
        estimator: LossEstimator,
        now: Instant,
    }

    impl Line {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
        fn new() -> Self {
            Self { estimator: LossEstimator::default(), now: Instant::now() }
        }

        /// Two seconds over a line of so much, that loses this share of what it carries.
        fn window(&mut self, carries: f64, loses: f64) -> Option<u64> {
            let limit = self.estimator.bits_per_second();
            let rate = limit.map_or(STREAM, |bits| STREAM.min(bits as f64));
            self.now += Duration::from_secs(2);
            let arrived = rate.min(carries) * (1.0 - loses);
            self.estimator.handle_window((1.0 - arrived / rate) as f32, rate as u64, self.now);
            self.estimator.bits_per_second()
        }
    }

    #[test]
    fn a_thin_line_is_found_and_found_to_be_free_again() {
        let mut line = Line::new();
        assert_eq!(line.window(1e6, 0.0), None);
        let first = line.window(1e6, 0.0).unwrap();
        assert!((950_000..1_050_000).contains(&first), "{first}");
        for _ in 0..4 {
            let now = line.window(f64::MAX, 0.0).unwrap();
            assert!(now > first);
        }
        assert_eq!(line.window(f64::MAX, 0.0), None);
    }

    #[test]
    fn a_line_that_gets_thinner_is_followed() {
        let mut line = Line::new();
        for _ in 0..3 {
            line.window(1e6, 0.0);
        }
        let found: Vec<_> = (0..3).map(|_| line.window(0.6e6, 0.0)).collect();
        let last = found[2].unwrap();
        assert!((550_000..710_000).contains(&last), "{found:?}");
    }

    #[test]
    fn loss_that_does_not_heed_the_rate_is_left_alone() {
        let mut line = Line::new();
        let limited: Vec<bool> = (0..20).map(|_| line.window(f64::MAX, 0.2).is_some()).collect();
        let windows = limited.iter().filter(|limited| **limited).count();
        assert!((1..=3).contains(&windows), "{limited:?}");
        assert!(limited[5..15].iter().all(|limited| !limited), "{limited:?}");
    }

    #[test]
    fn a_little_loss_limits_nothing() {
        let mut line = Line::new();
        assert!((0..60).all(|_| line.window(f64::MAX, 0.05).is_none()));
    }
}
