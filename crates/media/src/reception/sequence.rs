//! What the sequence numbers of one stream tell: loss, reordering, repetition (RFC 3550 A.1, A.3),
//! and jitter (A.8).

use std::time::Instant;

/// A jump ahead of more than this is a new start of the sender, not loss (RFC 3550 A.1's
/// `MAX_DROPOUT`).
const JUMP_MAX: u16 = 3_000;

/// How far behind the highest number a packet is still told apart from a repetition: the width of
/// the list of what was seen.
const WINDOW: u16 = 128;

/// The sequence numbers of one SSRC.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    /// First number of the present round of counting.
    base: u32,
    /// Highest number, extended by the roll-overs.
    highest: u32,
    /// Bit n: `highest - n` was seen.
    seen: u128,
    /// Packets of this round of counting, repetitions left out.
    received: u64,
    /// What earlier rounds lacked.
    lost_before: u64,
    reordered: u64,
    repeated: u64,
    restarts: u64,
    jitter: Jitter,
    reported: Reported,
}

/// What the last receiver report was computed from.
#[derive(Debug, Clone, Copy, Default)]
struct Reported {
    expected: u64,
    received: u64,
}

/// A packet's place among those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The one that was due.
    Next,
    /// Some before it are missing, or the sender started anew.
    AfterGap,
    /// It should have come earlier.
    Late,
    /// It came already.
    Repeated,
}

impl Sequence {
    /// Begins with the first packet.
    pub(super) fn starting_at(sequence: u16) -> Self {
        Self {
            base: u32::from(sequence),
            highest: u32::from(sequence),
            seen: 1,
            received: 1,
            lost_before: 0,
            reordered: 0,
            repeated: 0,
            restarts: 0,
            jitter: Jitter::default(),
            reported: Reported::default(),
        }
    }

    /// The next packet of the stream.
    pub(super) fn handle(&mut self, sequence: u16) -> Place {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        match ahead {
            0 => self.repeat(),
            1..=JUMP_MAX => self.advance(ahead),
            _ if ahead > u16::MAX - JUMP_MAX => self.handle_late(0_u16.wrapping_sub(ahead)),
            _ => self.restart(sequence),
        }
    }

    fn repeat(&mut self) -> Place {
        self.repeated += 1;
        Place::Repeated
    }

    fn advance(&mut self, ahead: u16) -> Place {
        self.highest = self.highest.wrapping_add(u32::from(ahead));
        self.seen = self.seen.checked_shl(u32::from(ahead)).unwrap_or(0) | 1;
        self.received += 1;
        if ahead == 1 { Place::Next } else { Place::AfterGap }
    }

    fn handle_late(&mut self, behind: u16) -> Place {
        let bit = 1_u128.checked_shl(u32::from(behind)).unwrap_or(0);
        if behind < WINDOW && self.seen & bit != 0 {
            return self.repeat();
        }
        self.seen |= bit;
        self.received += 1;
        self.reordered += 1;
        // Before the first packet there may have been others on their way.
        let sequence = self.highest.wrapping_sub(u32::from(behind));
        if sequence.wrapping_sub(self.base) > u32::MAX / 2 {
            self.base = sequence;
        }
        Place::Late
    }

    fn restart(&mut self, sequence: u16) -> Place {
        let begun = Self::starting_at(sequence);
        *self = Self {
            lost_before: self.lost(),
            reordered: self.reordered,
            repeated: self.repeated,
            restarts: self.restarts + 1,
            ..begun
        };
        Place::AfterGap
    }

    /// Takes a packet's arrival into the jitter; `rate` is the RTP clock.
    pub(super) fn note_arrival(&mut self, timestamp: u32, at: Instant, rate: u32) {
        self.jitter.handle(timestamp, at, rate);
    }

    fn expected(&self) -> u64 {
        u64::from(self.highest.wrapping_sub(self.base)) + 1
    }

    /// Packets that never came.
    pub(super) fn lost(&self) -> u64 {
        self.lost_before + self.expected().saturating_sub(self.received)
    }

    /// Packets that came after later ones.
    pub(super) fn reordered(&self) -> u64 {
        self.reordered
    }

    /// Packets that came twice.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// How often the sender began anew with other numbers.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Highest sequence number with the count of roll-overs above it, for reports.
    pub(super) fn highest(&self) -> u32 {
        self.highest
    }

    /// Interarrival jitter in clock ticks.
    pub(super) fn jitter(&self) -> u32 {
        self.jitter.ticks as u32
    }

    /// Share lost since the last call, in 1/256.
    pub(super) fn take_fraction_lost(&mut self) -> u8 {
        let reported = Reported { expected: self.expected(), received: self.received };
        let expected = reported.expected.saturating_sub(self.reported.expected);
        let received = reported.received.saturating_sub(self.reported.received);
        self.reported = reported;
        let lost = expected.saturating_sub(received);
        (lost * 256).checked_div(expected).unwrap_or(0).min(255) as u8
    }
}

/// RFC 3550 A.8.
#[derive(Debug, Clone, Default)]
struct Jitter {
    ticks: f64,
    previous: Option<(u32, Instant)>,
}

impl Jitter {
    fn handle(&mut self, timestamp: u32, at: Instant, rate: u32) {
        if let Some((before, came)) = self.previous {
            let sent = f64::from(timestamp.wrapping_sub(before) as i32);
            let arrived = at.saturating_duration_since(came).as_secs_f64() * f64::from(rate);
            self.ticks += ((arrived - sent).abs() - self.ticks) / 16.0;
        }
        self.previous = Some((timestamp, at));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(numbers: &[u16]) -> Sequence {
        let mut sequence = Sequence::starting_at(numbers[0]);
        for number in &numbers[1..] {
            sequence.handle(*number);
        }
        sequence
    }

    #[test]
    fn what_is_missing_what_is_late_and_what_came_twice() {
        let sequence = of(&[65_534, 65_535, 1, 0, 0, 4, 4]);
        assert_eq!((sequence.lost(), sequence.reordered(), sequence.repeated()), (2, 1, 2));
        assert_eq!(sequence.highest(), 65_536 + 4);
    }

    #[test]
    fn a_packet_before_the_first_one_counts_as_late() {
        let sequence = of(&[10, 8, 11]);
        assert_eq!((sequence.lost(), sequence.reordered()), (1, 1));
    }

    #[test]
    fn a_new_start_is_not_loss() {
        let sequence = of(&[10, 12, 40_000, 40_001]);
        assert_eq!((sequence.lost(), sequence.restarts()), (1, 1));
    }

    #[test]
    fn the_share_lost_is_that_since_the_last_report() {
        let mut sequence = of(&[1, 2, 4]);
        assert_eq!(sequence.take_fraction_lost(), 64);
        sequence.handle(5);
        assert_eq!(sequence.take_fraction_lost(), 0);
        assert_eq!(sequence.take_fraction_lost(), 0);
    }

    proptest! {
        #[test]
        fn whatever_order_within_the_window_the_count_is_right(
            start: u16,
            arrivals in proptest::collection::vec((0_u16..400, 0_u16..60), 1..300),
        ) {
            // Sorted by number + delay: an order that a network could make.
            let mut order: Vec<(u16, u16)> = arrivals;
            order.sort_by_key(|(number, delay)| (number + delay, *number));
            let numbers: Vec<u16> = order.iter().map(|(number, _)| start.wrapping_add(*number)).collect();
            let sequence = of(&numbers);
            let distinct: std::collections::BTreeSet<u16> = order.iter().map(|(number, _)| *number).collect();
            let span = u64::from(distinct.last().unwrap() - distinct.first().unwrap()) + 1;
            prop_assert_eq!(sequence.lost(), span - distinct.len() as u64);
            prop_assert_eq!(sequence.repeated(), (numbers.len() - distinct.len()) as u64);
        }
    }
}
