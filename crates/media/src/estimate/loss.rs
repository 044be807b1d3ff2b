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

use super::bits_per_second;

/// Above this share something is wrong (draft-ietf-rmcat-gcc §6 takes the same).
const MUCH: f32 = 0.10;
/// Below this one nothing is.
const LITTLE: f32 = 0.02;
/// Reports above [`MUCH`] in a row before anything is done.
const REPORTS_TO_LIMIT: u8 = 2;
/// Reports after which sending less should have helped: what waits in the line's own queue leaves
/// first.
const REPORTS_TO_HELP: u8 = 3;
/// It has helped when no more than this share of the earlier loss is left.
const HELPED: f32 = 0.7;
/// Growth with each report without loss: 8 % a second, as libwebrtc's.
const GROWTH_PERCENT: u64 = 8;
/// Reports without loss after which the line is taken for free again: it has grown to twice.
const REPORTS_TO_OPEN: u8 = 10;
/// How long loss is left alone after sending less did not help; doubled each time.
const LOSSY_FOR: Duration = Duration::from_secs(30);
/// And how long at most.
const LOSSY_FOR_AT_MOST: Duration = Duration::from_secs(600);
/// Reports closer than this are read as one with the next.
const MIN_INTERVAL: Duration = Duration::from_millis(400);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Open {
        bad_reports: u8,
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
    bad_reports: u8,
    good_reports: u8,
}

/// What receiver reports say of the rate.
#[derive(Debug)]
pub(super) struct LossEstimator {
    phase: Phase,
    lossy_for: Duration,
    /// What was sent up to the last report, and when that was.
    sent: Option<(u64, Instant)>,
}

impl Default for LossEstimator {
    fn default() -> Self {
        Self { phase: Phase::Open { bad_reports: 0 }, lossy_for: LOSSY_FOR, sent: None }
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

    /// A report: the share lost, 0.0 to 1.0, and the bytes sent so far.
    pub(super) fn handle_report(&mut self, loss: f32, sent_bytes: u64, now: Instant) {
        let Some((bytes_before, at)) = self.sent else {
            self.sent = Some((sent_bytes, now));
            return;
        };
        let elapsed = now.saturating_duration_since(at);
        if elapsed < MIN_INTERVAL {
            return;
        }
        self.sent = Some((sent_bytes, now));
        let sent = bits_per_second(sent_bytes.saturating_sub(bytes_before), elapsed);
        let arrived = (sent as f64 * f64::from(1.0 - loss)) as u64;
        self.phase = match self.phase {
            Phase::Open { bad_reports } if loss >= MUCH => {
                if bad_reports + 1 == REPORTS_TO_LIMIT {
                    Phase::Limited(Limit::to(arrived, loss))
                } else {
                    Phase::Open { bad_reports: bad_reports + 1 }
                }
            }
            Phase::Limited(limit) => self.after_report(limit, arrived, loss, now),
            Phase::Lossy { until } if now < until => self.phase,
            Phase::Open { .. } | Phase::Lossy { .. } => Phase::Open { bad_reports: 0 },
        };
    }

    fn after_report(&mut self, mut limit: Limit, arrived: u64, loss: f32, now: Instant) -> Phase {
        if loss < LITTLE {
            limit.good_reports += 1;
            limit.bits_per_second += limit.bits_per_second * GROWTH_PERCENT / 100;
            if limit.good_reports == REPORTS_TO_OPEN {
                self.lossy_for = LOSSY_FOR;
                return Phase::Open { bad_reports: 0 };
            }
        }
        if loss >= MUCH {
            limit.bad_reports += 1;
        }
        if limit.bad_reports < REPORTS_TO_HELP {
            return Phase::Limited(limit);
        }
        // After it had helped, the line has become thinner.
        if limit.good_reports > 0 || loss <= limit.loss * HELPED {
            return Phase::Limited(Limit::to(arrived, loss));
        }
        let until = now + self.lossy_for;
        self.lossy_for = (self.lossy_for * 2).min(LOSSY_FOR_AT_MOST);
        Phase::Lossy { until }
    }
}

impl Limit {
    fn to(bits_per_second: u64, loss: f32) -> Self {
        Self { bits_per_second, loss, bad_reports: 0, good_reports: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: f64 = 2e6;

    /// A line between a sender that keeps to the estimate and reports once a second.
    struct Line {
        estimator: LossEstimator,
        now: Instant,
        sent_bytes: u64,
    }

    impl Line {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
        fn new() -> Self {
            Self { estimator: LossEstimator::default(), now: Instant::now(), sent_bytes: 0 }
        }

        /// One second over a line of so much, that loses this share of what it carries.
        fn second(&mut self, carries: f64, loses: f64) -> Option<u64> {
            let rate =
                self.estimator.bits_per_second().map_or(STREAM, |bits| STREAM.min(bits as f64));
            self.sent_bytes += (rate / 8.0) as u64;
            self.now += Duration::from_secs(1);
            let arrived = rate.min(carries) * (1.0 - loses);
            let loss = (1.0 - arrived / rate) as f32;
            self.estimator.handle_report(loss, self.sent_bytes, self.now);
            self.estimator.bits_per_second()
        }
    }

    #[test]
    fn a_thin_line_is_found_and_found_to_be_free_again() {
        let mut line = Line::new();
        let found: Vec<_> = (0..3).map(|_| line.second(1e6, 0.0)).collect();
        assert_eq!(found[..2], [None, None]);
        let first = found[2].unwrap();
        assert!((950_000..1_050_000).contains(&first), "{first}");
        for _ in 0..9 {
            let now = line.second(f64::MAX, 0.0).unwrap();
            assert!(now > first);
        }
        assert_eq!(line.second(f64::MAX, 0.0), None);
    }

    #[test]
    fn a_line_that_gets_thinner_is_followed() {
        let mut line = Line::new();
        for _ in 0..4 {
            line.second(1e6, 0.0);
        }
        let found: Vec<_> = (0..4).map(|_| line.second(0.7e6, 0.0)).collect();
        let last = found[3].unwrap();
        assert!((650_000..760_000).contains(&last), "{found:?}");
    }

    #[test]
    fn loss_that_does_not_heed_the_rate_is_left_alone() {
        let mut line = Line::new();
        let limited: Vec<bool> = (0..40).map(|_| line.second(f64::MAX, 0.2).is_some()).collect();
        let seconds = limited.iter().filter(|limited| **limited).count();
        assert!((1..=8).contains(&seconds), "{limited:?}");
        assert!(limited[10..30].iter().all(|limited| !limited), "{limited:?}");
    }

    #[test]
    fn a_little_loss_limits_nothing() {
        let mut line = Line::new();
        assert!((0..60).all(|_| line.second(f64::MAX, 0.05).is_none()));
    }
}
