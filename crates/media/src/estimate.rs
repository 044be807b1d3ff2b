//! What a viewer's line carries, from what the viewer says of it.
//!
//! Reads no packets and sends none: figures in, figures out. Three sources, the least of which
//! counts:
//!
//! - **REMB:** the viewer's own estimate, as it stands.
//! - **Transport-wide feedback:** `arrivals`: received rate and queueing delay.
//! - **Loss**, from receiver reports: `loss`. Not where another one says that the line carries the
//!   stream: then it loses, whatever is sent, and to send less would help nobody.
//!
//! An estimate is no more than about one and a half times of what was sent. So it says when a line is
//! too thin, and not how wide it is: whether it is wide enough again is found out by trying,
//! `probe`.

mod arrivals;
mod loss;
mod probe;

use std::time::{Duration, Instant};

use arrivals::ArrivalEstimator;
use loss::LossEstimator;
use probe::{Probe, Queue, Signs};

use crate::rtcp::{ReportBlock, TransportFeedback};

/// How long a REMB counts. Browsers send one a second.
const TOLD_FOR: Duration = Duration::from_secs(5);
/// A line limits a stream from this share of the stream's rate down, in percent. Browsers that take
/// one late burst for a queue go to 85 % of what they received, and no real shortage is meant by it.
const LIMITED_BELOW_PERCENT: u64 = 80;
/// How long the estimate must be so low.
const LIMITED_AFTER: Duration = Duration::from_millis(500);
/// And what else must tell of a line that is too thin: a queue, by a round trip that is so much longer
/// than the shortest one ...
const QUEUED: Duration = Duration::from_millis(50);
/// ... or loss of this share. A browser on a busy machine reads its packets late, takes that for a
/// queue and tells less than it receives; of a still scene that is less than its next keyframe needs.
const LOSING: f32 = 0.10;
/// A line is never taken for thinner than this: some viewers say 0 while they decide.
const MIN_BITS_PER_SECOND: u64 = 64_000;
/// Loss is taken over so long. Browsers put a report into every feedback, of a few packets each.
const LOSS_WINDOW: Duration = Duration::from_secs(2);
/// Share of a window in the smoothed loss.
const LOSS_WEIGHT: f32 = 0.5;
/// The same of a round trip.
const ROUND_TRIP_WEIGHT: u32 = 8;
/// The shortest round trip follows longer ones by this share, as paths change: within some ten answers
/// a way that is 80 ms longer is none that has a queue.
const SHORTEST_WEIGHT: u32 = 16;
/// Longest round trip that is believed; a viewer's clock may say anything.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(10);

/// A larger stream was begun: estimates are bounded by what was received before, and browsers raise
/// theirs by 8 % a second, in 30 s tenfold. So long a low one counts only when it falls.
const RAMP: Duration = Duration::from_secs(30);
/// It has fallen when it is below this share of the highest one, in percent: a browser that sees a
/// queue goes to 85 % of what it received.
const FALLEN_BELOW_PERCENT: u64 = 95;
/// More loss than this says by itself that the larger stream is too large.
const RAMP_LOSS: f32 = 0.10;

/// How a viewer's line does, as far as the viewer told.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LineState {
    /// Share of the pictures' packets (where there are none, of the sound's) that was lost on the
    /// way, 0.0 to 1.0, smoothed over some seconds. Those that were repaired by retransmission count as lost.
    pub loss: f32,
    /// Time to the viewer and back, smoothed; `None` before it answered a sender report.
    pub round_trip: Option<Duration>,
    /// What the line carries in bits a second, at most about 1.5 times of what is sent; `None` while
    /// nothing is known.
    pub estimate_bps: Option<u64>,
    /// It has carried less than the stream for a while: the stream is held to what it carries, and
    /// frames may be skipped.
    pub is_too_thin: bool,
}

/// The time after a larger stream was begun.
#[derive(Debug, Clone, Copy)]
struct Ramp {
    until: Instant,
    highest_bps: u64,
}

/// One viewer's estimate.
#[derive(Debug, Default)]
pub(crate) struct Estimator {
    loss: f32,
    /// What a report said when the loss was last taken.
    counts: Option<Counts>,
    round_trip: Option<Duration>,
    /// The two newest.
    newest_round_trips: [Duration; 2],
    shortest_round_trip: Duration,
    /// The newest REMB.
    told: Option<(u64, Instant)>,
    /// Only with transport-wide feedback; boxed, as it takes 24 KB.
    arrivals: Option<Box<ArrivalEstimator>>,
    by_loss: LossEstimator,
    stream_bps: Option<u64>,
    low_since: Option<Instant>,
    limit: Option<u64>,
    /// From the begin of a limit until the estimate allows the stream.
    probe: Option<Probe>,
    ramp: Option<Ramp>,
}

/// What has been counted up to a report; all of it may wrap.
#[derive(Debug, Clone, Copy)]
struct Counts {
    sequence: u32,
    lost: i32,
    sent_bytes: u64,
    at: Instant,
}

impl Estimator {
    pub(crate) fn line(&self) -> LineState {
        LineState {
            loss: self.loss,
            round_trip: self.round_trip,
            estimate_bps: self.bits_per_second(),
            is_too_thin: self.limit.is_some(),
        }
    }

    /// What the stream is to be held to in bits a second; `None` when the line carries it.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// A packet with a transport-wide number leaves; `bytes` with its headers.
    pub(crate) fn handle_sent(&mut self, sequence: u16, bytes: usize, at_micros: u32) {
        self.arrivals.get_or_insert_default().handle_sent(sequence, bytes, at_micros);
    }

    /// A report on the pictures, and the bytes that were sent of them so far.
    pub(crate) fn handle_report(&mut self, report: &ReportBlock, sent_bytes: u64, now: Instant) {
        if let Some((loss, sent)) = self.measure_loss(report, sent_bytes, now) {
            self.by_loss.handle_window(loss, sent, now);
            self.decide(now);
        }
    }

    /// A report on sound without a picture. There is nothing to be held back, so that it is only told.
    pub(crate) fn handle_sound_report(&mut self, report: &ReportBlock, now: Instant) {
        self.measure_loss(report, 0, now);
    }

    /// Once a window: the loss in it, and the rate at which was sent.
    fn measure_loss(
        &mut self,
        report: &ReportBlock,
        sent_bytes: u64,
        now: Instant,
    ) -> Option<(f32, u64)> {
        let counts = Counts {
            sequence: report.highest_sequence,
            lost: report.cumulative_lost,
            sent_bytes,
            at: now,
        };
        let before = *self.counts.get_or_insert(counts);
        let elapsed = now.saturating_duration_since(before.at);
        let expected = counts.sequence.wrapping_sub(before.sequence);
        // A count that runs back comes from a viewer that began anew.
        let Ok(expected) = u16::try_from(expected) else {
            self.counts = Some(counts);
            return None;
        };
        if elapsed < LOSS_WINDOW || expected == 0 {
            return None;
        }
        self.counts = Some(counts);
        let lost = counts.lost.saturating_sub(before.lost).max(0);
        let loss = (lost as f32 / f32::from(expected)).min(1.0);
        self.loss += (loss - self.loss) * LOSS_WEIGHT;
        let sent = bits_per_second(sent_bytes.saturating_sub(before.sent_bytes), elapsed);
        Some((loss, sent))
    }

    pub(crate) fn handle_round_trip(&mut self, measured: Duration) {
        if measured > MAX_ROUND_TRIP {
            return;
        }
        let Some(smoothed) = self.round_trip else {
            self.round_trip = Some(measured);
            self.shortest_round_trip = measured;
            self.newest_round_trips = [measured; 2];
            return;
        };
        let weighted = smoothed * (ROUND_TRIP_WEIGHT - 1) + measured;
        self.round_trip = Some(weighted / ROUND_TRIP_WEIGHT);
        self.newest_round_trips = [self.newest_round_trips[1], measured];
        let followed = self.shortest_round_trip * (SHORTEST_WEIGHT - 1) + measured;
        self.shortest_round_trip = measured.min(followed / SHORTEST_WEIGHT);
    }

    /// Whether something besides the estimate tells of a line that is too thin; or nothing is known.
    fn struggles(&self) -> bool {
        self.round_trip.is_none() || self.queue() != Queue::None || self.loss >= LOSING
    }

    fn queue(&self) -> Queue {
        match self.newest_round_trips.map(|round_trip| self.is_late(round_trip)) {
            [_, false] => Queue::None,
            [false, true] => Queue::Perhaps,
            [true, true] => Queue::Certain,
        }
    }

    fn is_late(&self, round_trip: Duration) -> bool {
        round_trip.saturating_sub(self.shortest_round_trip) >= QUEUED
    }

    /// REMB.
    pub(crate) fn handle_told(&mut self, bits_per_second: u64, now: Instant) {
        self.told = Some((bits_per_second, now));
        self.decide(now);
    }

    pub(crate) fn handle_arrivals(&mut self, feedback: &TransportFeedback, now: Instant) {
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.handle_feedback(feedback);
            self.decide(now);
        }
    }

    /// What the stream takes; at least once a second.
    pub(crate) fn handle_stream_rate(&mut self, bits_per_second: Option<u64>, now: Instant) {
        self.stream_bps = bits_per_second;
        if self.told.is_some_and(|(_, at)| now.saturating_duration_since(at) > TOLD_FOR) {
            self.told = None;
        }
        self.decide(now);
    }

    /// Another stream is sent from here on. Unless it is known to be smaller, what is estimated says
    /// nothing of it for a while.
    pub(crate) fn handle_stream_change(&mut self, bits_per_second: Option<u64>, now: Instant) {
        let is_smaller = bits_per_second.zip(self.stream_bps).is_some_and(|(new, old)| new < old);
        self.ramp = (!is_smaller).then_some(Ramp { until: now + RAMP, highest_bps: 0 });
        self.handle_stream_rate(bits_per_second, now);
    }

    /// Whether a low estimate is one that only has not risen yet.
    fn is_ramping(&mut self, now: Instant) -> bool {
        let estimate = self.bits_per_second();
        let Some(ramp) = &mut self.ramp else { return false };
        let estimate = estimate.unwrap_or(ramp.highest_bps);
        let has_fallen =
            estimate.saturating_mul(100) < ramp.highest_bps.saturating_mul(FALLEN_BELOW_PERCENT);
        ramp.highest_bps = ramp.highest_bps.max(estimate);
        if now >= ramp.until || has_fallen || self.loss > RAMP_LOSS {
            self.ramp = None;
        }
        self.ramp.is_some()
    }

    fn bits_per_second(&self) -> Option<u64> {
        let told = self.told.map(|(bits, _)| bits);
        let measured = self.arrivals.as_ref().and_then(|arrivals| arrivals.bits_per_second());
        let known = told.into_iter().chain(measured).min();
        let carries = known.zip(self.stream_bps).is_some_and(|(known, stream)| known >= stream);
        let by_loss = self.by_loss.bits_per_second().filter(|_| !carries);
        known.into_iter().chain(by_loss).min()
    }

    /// A limit begins when the estimate was low for a while and is not the only sign, follows it or
    /// what the line is tried with, and ends when either reaches the stream's rate.
    fn decide(&mut self, now: Instant) {
        let known = self.bits_per_second().zip(self.stream_bps);
        let begins_below = if self.limit.is_some() { 100 } else { LIMITED_BELOW_PERCENT };
        let low = known.filter(|(estimate, stream)| {
            estimate.saturating_mul(100) < stream.saturating_mul(begins_below)
        });
        let is_ramping = self.is_ramping(now);
        let Some((estimate, stream)) = low.filter(|_| !is_ramping) else {
            (self.low_since, self.limit, self.probe) = (None, None, None);
            return;
        };
        let estimate = estimate.max(MIN_BITS_PER_SECOND);
        let since = *self.low_since.get_or_insert(now);
        let signs = Signs { queue: self.queue(), loss: self.loss };
        if let Some(probe) = &mut self.probe {
            self.limit = probe.advance(estimate, stream, signs, now);
        } else if now.saturating_duration_since(since) >= LIMITED_AFTER && self.struggles() {
            self.probe = Some(Probe::new(now));
            self.limit = Some(estimate);
        }
    }
}

/// The rate of what passes by, smoothed over some seconds.
#[derive(Debug, Default)]
pub(crate) struct RateMeter {
    begun: Option<Instant>,
    bytes: u64,
    smoothed: Option<u64>,
}

impl RateMeter {
    /// Measured over so long: a usual group of pictures. Within one the rate says little.
    const STEP: Duration = Duration::from_secs(2);
    /// After a longer silence what was measured before says nothing.
    const SILENCE: Duration = Duration::from_secs(5);

    pub(crate) fn handle_passed(&mut self, bytes: usize, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        let elapsed = now.saturating_duration_since(begun);
        if elapsed > Self::SILENCE {
            (self.begun, self.bytes, self.smoothed) = (Some(now), 0, None);
        } else if elapsed >= Self::STEP {
            let rate = bits_per_second(self.bytes, elapsed);
            let smoothed = self.smoothed.map_or(rate, |before| before.midpoint(rate));
            (self.begun, self.bytes, self.smoothed) = (Some(now), 0, Some(smoothed));
        }
        self.bytes += bytes as u64;
    }

    /// `None` in the first seconds.
    pub(crate) fn bits_per_second(&self) -> Option<u64> {
        self.smoothed
    }
}

/// 0 when no time has passed.
fn bits_per_second(bytes: u64, elapsed: Duration) -> u64 {
    let micros = elapsed.as_micros() as u64;
    bytes.saturating_mul(8_000_000).checked_div(micros).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn epoch() -> Instant {
        Instant::now()
    }

    const STREAM: u64 = 2_000_000;

    fn estimator(now: Instant) -> Estimator {
        let mut estimator = Estimator::default();
        estimator.handle_stream_rate(Some(STREAM), now);
        estimator
    }

    #[test]
    fn a_line_that_is_told_to_carry_the_stream_limits_nothing() {
        let start = epoch();
        let mut estimator = estimator(start);
        for second in 0..10 {
            // What a browser says after one late burst.
            estimator.handle_told(STREAM * 85 / 100, start + Duration::from_secs(second));
        }
        assert_eq!(estimator.limit(), None);
        assert_eq!(estimator.line().estimate_bps, Some(1_700_000));
    }

    #[test]
    fn a_larger_stream_is_given_time_unless_the_estimate_falls() {
        let start = epoch();
        let at = |second: u64| start + Duration::from_secs(second);
        let begun = |told: &dyn Fn(u64) -> u64| {
            let mut estimator = Estimator::default();
            estimator.handle_stream_rate(Some(250_000), start);
            estimator.handle_told(380_000, start);
            estimator.handle_stream_change(Some(STREAM), start);
            (1..).take(60).find(|second| {
                estimator.handle_told(told(*second), at(*second));
                estimator.limit().is_some()
            })
        };
        let rising = |second: u64| 380_000 + second.min(7) * 30_000;
        assert_eq!(begun(&rising), Some(31), "it rose for seven seconds and no further");
        assert_eq!(begun(&|second| 380_000 + second * 60_000), None, "it gets there");
        assert_eq!(begun(&|second| if second < 5 { 500_000 } else { 430_000 }), Some(6));
    }

    #[test]
    fn a_smaller_stream_leaves_the_limit_until_the_line_is_known_to_carry_it() {
        let start = epoch();
        let mut estimator = estimator(start);
        estimator.handle_told(300_000, start);
        estimator.handle_told(300_000, start + LIMITED_AFTER);
        estimator.handle_stream_change(Some(1_000_000), start + LIMITED_AFTER);
        assert_eq!(estimator.limit(), Some(300_000));
        estimator.handle_stream_change(Some(250_000), start + 2 * LIMITED_AFTER);
        assert_eq!((estimator.limit(), estimator.line().is_too_thin), (None, false));
    }

    #[test]
    fn a_low_estimate_limits_after_a_while_and_until_the_line_carries_the_stream_again() {
        let start = epoch();
        let at = |tenths: u64| start + Duration::from_millis(tenths * 100);
        let mut estimator = estimator(start);
        estimator.handle_told(900_000, at(0));
        assert_eq!(estimator.limit(), None, "once is no sign");
        estimator.handle_told(2_500_000, at(3));
        estimator.handle_told(900_000, at(4));
        estimator.handle_told(900_000, at(8));
        assert_eq!(estimator.limit(), None, "it was interrupted");
        estimator.handle_told(900_000, at(9));
        assert_eq!(estimator.limit(), Some(900_000));
        estimator.handle_told(1_900_000, at(20));
        assert_eq!(estimator.limit(), Some(1_900_000));
        estimator.handle_told(0, at(21));
        assert_eq!(estimator.limit(), Some(MIN_BITS_PER_SECOND));
        estimator.handle_told(u64::MAX, at(30));
        assert_eq!(estimator.limit(), None);
    }

    #[test]
    fn a_low_estimate_alone_is_the_browsers_own_trouble() {
        let start = epoch();
        let mut estimator = estimator(start);
        let mut after = |second, millis| {
            let now = start + Duration::from_secs(second);
            estimator.handle_round_trip(Duration::from_millis(millis));
            estimator.handle_told(900_000, now);
            estimator.limit()
        };
        assert!((0..10).all(|second| after(second, 20 + second * 3).is_none()));
        assert_eq!(after(10, 90), Some(900_000), "there is a queue");
        assert_eq!(after(11, 20), Some(900_000), "until the estimate is high again");
    }

    /// What browsers do that were sent little for a while: they tell that they could take little.
    #[test]
    fn an_estimate_that_stays_low_without_cause_is_overruled() {
        let start = epoch();
        let mut estimator = estimator(start);
        estimator.handle_round_trip(Duration::from_millis(20));
        let limited: Vec<bool> = (0..60)
            .map(|second| {
                let now = start + Duration::from_secs(second);
                // The way became longer for good when it all began.
                let round_trip = if second < 2 { 200 } else { 100 };
                estimator.handle_round_trip(Duration::from_millis(round_trip));
                estimator.handle_told(40_000, now);
                estimator.limit().is_some()
            })
            .collect();
        assert!(limited[2], "{limited:?}");
        assert!(limited[40..].iter().all(|limited| !limited), "{limited:?}");
    }

    #[test]
    fn what_was_told_long_ago_counts_no_more() {
        let start = epoch();
        let mut estimator = estimator(start);
        estimator.handle_told(300_000, start);
        estimator.handle_told(300_000, start + LIMITED_AFTER);
        assert!(estimator.limit().is_some());
        let later = start + LIMITED_AFTER + TOLD_FOR + Duration::from_secs(1);
        estimator.handle_stream_rate(Some(STREAM), later);
        assert_eq!((estimator.limit(), estimator.line().estimate_bps), (None, None));
    }

    #[test]
    fn the_rate_of_a_stream_is_known_after_a_moment_and_forgotten_after_silence() {
        let start = epoch();
        let mut meter = RateMeter::default();
        for millis in (0..2_000).step_by(40) {
            meter.handle_passed(10_000, start + Duration::from_millis(millis));
        }
        assert_eq!(meter.bits_per_second(), None);
        for millis in (2_000..6_000).step_by(40) {
            meter.handle_passed(10_000, start + Duration::from_millis(millis));
        }
        assert_eq!(meter.bits_per_second(), Some(2_000_000));
        meter.handle_passed(10_000, start + Duration::from_secs(20));
        assert_eq!(meter.bits_per_second(), None);
    }

    fn report(highest_sequence: u32, cumulative_lost: i32) -> ReportBlock {
        ReportBlock {
            ssrc: 1,
            fraction_lost: 0,
            cumulative_lost,
            highest_sequence,
            jitter: 0,
            last_sender_report: 0,
            delay_since_last: 0,
        }
    }

    #[test]
    fn loss_is_taken_over_windows_however_often_reports_come() {
        let start = epoch();
        let mut estimator = Estimator::default();
        // 200 packets a second, of which each fifth is lost, around the wrap of the counter.
        for tenth in 0..200u32 {
            let now = start + Duration::from_millis(100) * tenth;
            let sequence = (u32::MAX - 500).wrapping_add(tenth * 20);
            let (lost, sent_bytes) = ((tenth * 4).cast_signed(), u64::from(tenth) * 20_000);
            estimator.handle_report(&report(sequence, lost), sent_bytes, now);
        }
        let loss = estimator.line().loss;
        assert!((0.18..0.21).contains(&loss), "{loss}");
        estimator.handle_report(&report(3, 0), 0, start + Duration::from_secs(30));
        estimator.handle_report(&report(1_003, -5), 0, start + Duration::from_secs(33));
        assert!(estimator.line().loss < loss, "a new count, with repeats in it");
    }

    #[test]
    fn loss_is_left_alone_where_the_line_is_told_to_carry_the_stream() {
        let start = epoch();
        let mut estimator = estimator(start);
        let mut is_limited_when_told = |told: Option<u64>, from: u64| {
            (from..from + 14).any(|second| {
                let now = start + Duration::from_secs(second);
                if let Some(told) = told {
                    estimator.handle_told(told, now);
                }
                let block = report(second as u32 * 200, second as i32 * 100);
                estimator.handle_report(&block, second * STREAM / 8, now);
                estimator.limit().is_some()
            })
        };
        assert!(is_limited_when_told(None, 0));
        assert!(!is_limited_when_told(Some(STREAM * 12 / 10), 14));
    }

    #[test]
    fn a_round_trip_is_smoothed_and_nonsense_left_out() {
        let mut estimator = Estimator::default();
        estimator.handle_round_trip(Duration::from_secs(11));
        assert_eq!(estimator.line().round_trip, None);
        estimator.handle_round_trip(Duration::from_millis(80));
        estimator.handle_round_trip(Duration::from_millis(160));
        assert_eq!(estimator.line().round_trip, Some(Duration::from_millis(90)));
    }
}
