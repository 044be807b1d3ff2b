//! What the engine waits for. One entry a timer; the earliest is the next timeout.

use std::collections::{BTreeMap, BTreeSet};

use control::Timestamp;
use media::StreamId;

use crate::io::HoldId;

/// What happens when a time comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The next lease runs out.
    Lease,
    /// A failed source may be tried again.
    Retry(StreamId),
    /// A stream without viewers is let go.
    Close(StreamId),
    /// Who held a stream for a moment has not let it go.
    Hold(HoldId),
}

/// The timers that are set: one entry each. Those of cameras are at most one for leases, two a stream
/// and one a hold. Operations take O(log n).
#[derive(Debug)]
pub(crate) struct Timers<T = Timer> {
    due: BTreeMap<T, Timestamp>,
    order: BTreeSet<(Timestamp, T)>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<T: Copy + Ord> Timers<T> {
    /// Sets a timer, or moves it.
    pub(crate) fn set(&mut self, timer: T, due: Timestamp) {
        if let Some(before) = self.due.insert(timer, due) {
            self.order.remove(&(before, timer));
        }
        self.order.insert((due, timer));
    }

    /// Removes a timer, if it is set.
    pub(crate) fn clear(&mut self, timer: T) {
        if let Some(due) = self.due.remove(&timer) {
            self.order.remove(&(due, timer));
        }
    }

    /// When the earliest timer is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Removes the earliest timer, if it is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<T> {
        let (due, timer) = *self.order.first()?;
        if due > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }

    /// Whether a timer is set.
    pub(crate) fn is_set(&self, timer: T) -> bool {
        self.due.contains_key(&timer)
    }

    /// How many timers are set.
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn timers_come_in_order_and_only_when_due() {
        let mut timers = Timers::default();
        timers.set(Timer::Close(StreamId(1)), at(30));
        timers.set(Timer::Retry(StreamId(2)), at(10));
        timers.set(Timer::Lease, at(20));
        timers.set(Timer::Retry(StreamId(2)), at(40));
        timers.clear(Timer::Close(StreamId(9)));

        assert_eq!(timers.next(), Some(at(20)));
        assert_eq!(timers.pop_due(at(19)), None);
        assert_eq!(timers.pop_due(at(30)), Some(Timer::Lease));
        assert_eq!(timers.pop_due(at(30)), Some(Timer::Close(StreamId(1))));
        assert_eq!(timers.pop_due(at(30)), None);
        assert_eq!((timers.len(), timers.next()), (1, Some(at(40))));
    }
}
