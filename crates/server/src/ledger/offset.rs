//! How far the store's clock is from this node's: leases are the store's time, sessions the node's.

use control::Timestamp;

/// Milliseconds that the store's clock is ahead of the node's.
///
/// An answer that left the store at `t` and was asked for at `a` and read at `b` tells that the store is
/// between `t - b` and `t - a` ahead. What is believed moves only as far as that demands, so
/// that a lease that was not renewed does not seem to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Offset {
    ahead_ms: i64,
    is_known: bool,
}

impl Offset {
    /// Learns from an answer of the store's time `store_ms`.
    pub(super) fn learn(&mut self, store_ms: u64, asked: Timestamp, read: Timestamp) {
        let least = difference(store_ms, read.as_millis());
        let most = difference(store_ms, asked.as_millis()).max(least);
        self.ahead_ms = if self.is_known {
            self.ahead_ms.clamp(least, most)
        } else {
            least + (most - least) / 2
        };
        self.is_known = true;
    }

    /// A moment of the node in the store's milliseconds.
    pub(super) fn to_store(self, timestamp: Timestamp) -> u64 {
        timestamp.as_millis().saturating_add_signed(self.ahead_ms)
    }

    /// A moment of the store as the node has it.
    pub(super) fn to_node(self, store_ms: u64) -> Timestamp {
        Timestamp::from_millis(store_ms.saturating_add_signed(-self.ahead_ms))
    }
}

/// `a - b`; both are milliseconds since 1970, far from the type's ends.
fn difference(a: u64, b: u64) -> i64 {
    i64::try_from(i128::from(a) - i128::from(b)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn clocks_ten_minutes_apart_are_told_apart() {
        let mut offset = Offset::default();
        offset.learn(1_600_000, at(1_000_000), at(1_000_004));
        assert_eq!(offset.to_node(1_600_000), at(1_000_002));
        assert_eq!(offset.to_store(at(1_000_002)), 1_600_000);

        let behind = &mut Offset::default();
        behind.learn(400_000, at(1_000_000), at(1_000_000));
        assert_eq!(behind.to_node(414_000), at(1_014_000));
    }

    #[test]
    fn slow_answers_move_nothing() {
        let mut offset = Offset::default();
        offset.learn(500, at(500), at(500));
        offset.learn(10_900, at(10_000), at(11_000));
        assert_eq!(offset.to_store(at(0)), 0);
        offset.learn(20_003, at(20_000), at(20_001));
        assert_eq!(offset.to_store(at(0)), 2, "only as far as the answer demands");
    }
}
