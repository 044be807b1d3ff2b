//! An estimate from transport-wide feedback: what arrived in what time, and how long it waited.
//!
//! A packet's way takes a constant and its time in queues. The constant is unknown, as the viewer's
//! clock is, but the shortest way of the last seconds is near it. What takes longer waits in front
//! of the thinnest part of the line, and then the rate at which packets arrive is what that part
//! carries.

use crate::rtcp::{TRANSPORT_TICK_MICROS, TransportFeedback};

/// Packets whose departure is remembered: a second of 24 Mbit/s. Feedback comes within 250 ms and a
/// round trip. Eight bytes each.
const MAX_SENT: usize = 2_048;
/// Over how long the received rate and the delay are taken, in microseconds. Shorter, and a keyframe
/// alone looks like a rate.
const INTERVAL_MICROS: u32 = 500_000;
/// A mean wait above this is a queue: keyframes sent in one burst wait some 50 ms at 10 Mbit/s.
const QUEUE_MICROS: u32 = 100_000;
/// The shortest way is that of the current and the previous so many intervals: 10 to 20 s. A viewer's
/// clock that drifts (50 ppm) is off by a millisecond then.
const INTERVALS_A_BASE: u32 = 20;
/// Where a queue is, the line carries this share of what arrives, in percent, so that it empties
/// (draft-ietf-rmcat-gcc §5.5 takes the same).
const EMPTYING_PERCENT: u64 = 85;
/// Growth in an interval without a queue: 8 % a second.
const GROWTH_PERCENT: u64 = 4;
/// What a line is taken to carry at most, in percent of what arrived: more was never tried.
const KNOWN_PERCENT: u64 = 150;

#[derive(Debug, Clone, Copy, Default)]
struct Departure {
    at_micros: u32,
    sequence: u16,
    /// 0: none, or its arrival was told.
    bytes: u16,
}

/// Arrivals since the interval began.
#[derive(Debug, Clone, Copy)]
struct Interval {
    begun_micros: u32,
    bytes: u64,
    packets: u64,
    waited_micros: u64,
}

/// See the module. All times wrap, which is why they are compared by their difference.
#[derive(Debug)]
pub(super) struct ArrivalEstimator {
    /// By sequence number, modulo [`MAX_SENT`].
    sent: Vec<Departure>,
    interval: Option<Interval>,
    /// Shortest way of the current base in the difference of both clocks, and of the one before.
    shortest: Option<u32>,
    shortest_before: Option<u32>,
    intervals: u32,
    bits_per_second: Option<u64>,
}

impl Default for ArrivalEstimator {
    fn default() -> Self {
        Self {
            sent: vec![Departure::default(); MAX_SENT],
            interval: None,
            shortest: None,
            shortest_before: None,
            intervals: 0,
            bits_per_second: None,
        }
    }
}

impl ArrivalEstimator {
    /// `None` before the first interval is over.
    pub(super) fn bits_per_second(&self) -> Option<u64> {
        self.bits_per_second
    }

    /// A packet leaves.
    pub(super) fn handle_sent(&mut self, sequence: u16, bytes: usize, at_micros: u32) {
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.sent[usize::from(sequence) % MAX_SENT] = Departure { at_micros, sequence, bytes };
    }

    /// What arrived. Packets that were told before, or never sent, are passed over.
    pub(super) fn handle_feedback(&mut self, feedback: &TransportFeedback) {
        for (offset, arrival) in feedback.arrivals.iter().enumerate() {
            let sequence = feedback.first_sequence.wrapping_add(offset as u16);
            let departure = &mut self.sent[usize::from(sequence) % MAX_SENT];
            let Some(ticks) = arrival.filter(|_| departure.sequence == sequence) else { continue };
            let bytes = std::mem::take(&mut departure.bytes);
            if bytes > 0 {
                let at_micros = departure.at_micros;
                self.handle_arrival(bytes, ticks.wrapping_mul(TRANSPORT_TICK_MICROS), at_micros);
            }
        }
    }

    fn handle_arrival(&mut self, bytes: u16, arrived_micros: u32, sent_micros: u32) {
        let way = arrived_micros.wrapping_sub(sent_micros);
        let shortest = shorter(self.shortest, way);
        self.shortest = Some(shortest);
        let waited = way.wrapping_sub(shorter(self.shortest_before, shortest));
        let begun_micros = arrived_micros;
        let begin = Interval { begun_micros, bytes: 0, packets: 0, waited_micros: 0 };
        let interval = self.interval.get_or_insert(begin);
        interval.bytes += u64::from(bytes);
        interval.packets += 1;
        interval.waited_micros += u64::from(waited);
        // Negative for packets that overtook each other.
        let elapsed = arrived_micros.wrapping_sub(interval.begun_micros).cast_signed();
        if elapsed >= INTERVAL_MICROS.cast_signed() {
            let interval = *interval;
            self.interval = Some(begin);
            self.close(&interval, elapsed.unsigned_abs());
        }
    }

    fn close(&mut self, interval: &Interval, elapsed_micros: u32) {
        let arrived = interval.bytes * 8_000_000 / u64::from(elapsed_micros);
        let is_queueing = interval.waited_micros / interval.packets > u64::from(QUEUE_MICROS);
        let known = arrived * KNOWN_PERCENT / 100;
        self.bits_per_second = Some(match self.bits_per_second {
            _ if is_queueing => arrived * EMPTYING_PERCENT / 100,
            Some(before) if before < known => {
                known.min(before.saturating_mul(100 + GROWTH_PERCENT) / 100)
            }
            Some(before) => before,
            None => known,
        });
        self.intervals += 1;
        if self.intervals == INTERVALS_A_BASE {
            self.intervals = 0;
            self.shortest_before = self.shortest.take();
        }
    }
}

/// The shorter of two ways, which are less than half of the clock's range apart.
fn shorter(known: Option<u32>, way: u32) -> u32 {
    known.filter(|known| way.wrapping_sub(*known).cast_signed() >= 0).unwrap_or(way)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PACKET: usize = 1_200;
    /// Of one second at `rate`.
    const fn packets_a_second(rate: u64) -> u64 {
        rate / 8 / PACKET as u64
    }

    /// A line with a queue without end, and a viewer whose clock has nothing to do with ours.
    struct Line {
        estimator: ArrivalEstimator,
        sequence: u16,
        now_micros: u64,
        free_at_micros: u64,
        clock: u32,
        left_over: Vec<(u16, u32)>,
    }

    impl Line {
        fn new(sequence: u16, clock: u32) -> Self {
            let (now_micros, free_at_micros) = (u64::from(u32::MAX) - 3_000_000, 0);
            let estimator = ArrivalEstimator::default();
            Self { estimator, sequence, now_micros, free_at_micros, clock, left_over: Vec::new() }
        }

        /// Sends at `rate` for a second over a line that carries `carries`.
        fn second(&mut self, rate: u64, carries: u64) -> Option<u64> {
            let count = packets_a_second(rate);
            for _ in 0..count {
                self.now_micros += 1_000_000 / count;
                let begins = self.now_micros.max(self.free_at_micros);
                self.free_at_micros = begins + PACKET as u64 * 8_000_000 / carries;
                self.estimator.handle_sent(self.sequence, PACKET, self.now_micros as u32);
                let arrives = self.free_at_micros + 20_000;
                let ticks = (arrives / u64::from(TRANSPORT_TICK_MICROS)) as u32;
                self.left_over.push((self.sequence, ticks.wrapping_add(self.clock)));
                self.sequence = self.sequence.wrapping_add(1);
            }
            for (first_sequence, ticks) in self.left_over.drain(..) {
                let arrivals = vec![Some(ticks)];
                self.estimator.handle_feedback(&TransportFeedback { first_sequence, arrivals });
            }
            self.estimator.bits_per_second()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_line_that_carries_it_is_known_to_carry_half_as_much_again(
            sequence: u16,
            clock: u32,
            rate in 200_000u64..8_000_000,
        ) {
            let mut line = Line::new(sequence, clock);
            for _ in 0..60 {
                line.second(rate, 100_000_000);
            }
            let found = line.estimator.bits_per_second().unwrap();
            prop_assert!((rate * 13 / 10..rate * 17 / 10).contains(&found), "{}", found);
        }

        #[test]
        fn a_thin_line_is_found_and_kept_to(sequence: u16, clock: u32, carries in 300_000u64..2_000_000) {
            let mut line = Line::new(sequence, clock);
            let stream = 2 * carries;
            let mut rate = stream;
            for second in 0..60 {
                rate = line.second(rate, carries).unwrap_or(stream).min(stream);
                prop_assert!(second < 3 || (carries / 2..carries * 3 / 2).contains(&rate), "{}", rate);
            }
            let waits = line.free_at_micros.saturating_sub(line.now_micros);
            prop_assert!(waits < 2_000_000, "the queue is drained, not filled: {waits} us");
        }

        #[test]
        fn nonsense_is_survived(
            feedback in prop::collection::vec(
                (any::<u16>(), prop::collection::vec(any::<Option<u32>>(), 1..50)),
                1..50,
            ),
        ) {
            let mut estimator = ArrivalEstimator::default();
            for sequence in 0..3_000u16 {
                estimator.handle_sent(sequence, 70_000, u32::from(sequence).wrapping_mul(1 << 20));
            }
            for (first_sequence, arrivals) in feedback {
                estimator.handle_feedback(&TransportFeedback { first_sequence, arrivals });
            }
        }
    }
}
