//! A publisher's packets brought into order.
//!
//! A packet that is next in turn leaves at once. Behind a hole packets wait for the missing ones,
//! which may be under way again, for as long as the buffer has patience; then the hole is given up
//! and told. Sequence numbers are extended ones, which never wrap; the caller extends them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Packets that wait behind a hole, at most: 300 ms of 50 Mbit/s in packets of 1,200 bytes. Beyond
/// that the hole is given up early.
const MAX_WAITING: usize = 1_562;

/// What comes out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// The next packet in order.
    Packet(T),
    /// So many packets are missing before the next one, and are not waited for any more.
    Gap(u64),
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It will come out.
    Kept,
    /// Its turn is over, or it is here already.
    Late,
}

/// One track's packets. See the module's documentation.
#[derive(Debug)]
pub(crate) struct JitterBuffer<T> {
    patience: Duration,
    /// The number whose turn it is; `None` before the first packet.
    next: Option<u64>,
    /// By number, with the moment of arrival.
    waiting: BTreeMap<u64, (Instant, T)>,
}

impl<T> JitterBuffer<T> {
    /// Waits for missing packets for `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, next: None, waiting: BTreeMap::new() }
    }

    /// Takes a packet in.
    pub(crate) fn insert(&mut self, number: u64, packet: T, now: Instant) -> Inserted {
        let next = *self.next.get_or_insert(number);
        if number < next || self.waiting.contains_key(&number) {
            return Inserted::Late;
        }
        self.waiting.insert(number, (now, packet));
        Inserted::Kept
    }

    /// What is to be handled next at `now`; ask until there is nothing.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Next<T>> {
        let (first, next) = (*self.waiting.first_key_value()?.0, self.next?);
        if first != next {
            let is_over = self.waiting.len() > MAX_WAITING || self.next_timeout()? <= now;
            return is_over.then(|| {
                self.next = Some(first);
                Next::Gap(first - next)
            });
        }
        let (_, (_, packet)) = self.waiting.pop_first()?;
        self.next = Some(first.saturating_add(1));
        Some(Next::Packet(packet))
    }

    /// When the hole before the waiting packets is given up.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let (first, (arrived, _)) = self.waiting.first_key_value()?;
        (Some(*first) != self.next).then(|| *arrived + self.patience)
    }

    /// Begins anew with the next packet, whatever its number; what waits is gone.
    pub(crate) fn reset(&mut self) {
        self.next = None;
        self.waiting.clear();
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(250);

    fn drain(buffer: &mut JitterBuffer<u64>, now: Instant) -> Vec<Next<u64>> {
        std::iter::from_fn(|| buffer.take(now)).collect()
    }

    #[test]
    fn what_is_in_order_never_waits() {
        let (mut buffer, now) = (JitterBuffer::new(PATIENCE), Instant::now());
        for number in 7..10 {
            assert_eq!(buffer.insert(number, number, now), Inserted::Kept);
            assert_eq!(drain(&mut buffer, now), [Next::Packet(number)]);
            assert_eq!(buffer.next_timeout(), None);
        }
    }

    #[test]
    fn a_hole_is_waited_for_and_given_up_in_the_end() {
        let (mut buffer, now) = (JitterBuffer::new(PATIENCE), Instant::now());
        for number in [1, 4, 5] {
            buffer.insert(number, number, now);
        }
        assert_eq!(drain(&mut buffer, now), [Next::Packet(1)]);
        buffer.insert(3, 3, now + PATIENCE / 2);
        assert_eq!(buffer.next_timeout(), Some(now + PATIENCE + PATIENCE / 2));
        assert_eq!(drain(&mut buffer, now + PATIENCE), []);
        let end = now + PATIENCE * 2;
        let rest = [Next::Gap(1), Next::Packet(3), Next::Packet(4), Next::Packet(5)];
        assert_eq!(drain(&mut buffer, end), rest);
        assert_eq!(buffer.insert(2, 2, end), Inserted::Late);
    }

    #[test]
    fn what_waits_is_bounded() {
        let (mut buffer, now) = (JitterBuffer::new(PATIENCE), Instant::now());
        buffer.insert(0, 0, now);
        drain(&mut buffer, now);
        for number in (2..).take(MAX_WAITING) {
            buffer.insert(number, number, now);
            assert_eq!(drain(&mut buffer, now), []);
        }
        buffer.insert(u64::MAX - 1, 0, now);
        let out = drain(&mut buffer, now);
        assert_eq!((out.len(), &out[0]), (MAX_WAITING + 1, &Next::Gap(1)));
    }

    proptest! {
        #[test]
        fn every_number_leaves_once_and_in_order(
            numbers in proptest::collection::vec(0_u64..200, 1..300),
        ) {
            let (mut buffer, now) = (JitterBuffer::new(PATIENCE), Instant::now());
            let mut position = numbers[0];
            for number in numbers {
                let kept = buffer.insert(number, number, now) == Inserted::Kept;
                prop_assert!(number >= position || !kept);
                let later = if number % 7 == 0 { now + PATIENCE } else { now };
                for out in drain(&mut buffer, later) {
                    match out {
                        Next::Packet(out) => {
                            prop_assert_eq!(out, position);
                            position += 1;
                        }
                        Next::Gap(missing) => position += missing,
                    }
                }
            }
        }
    }
}
