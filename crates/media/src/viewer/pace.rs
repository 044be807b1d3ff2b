//! How fast a viewer is sent to.

use std::time::{Duration, Instant};

use crate::frame::{MAX_PAYLOAD, PACKET_OVERHEAD};

/// What may be saved up between two bursts: the worker comes by every 2 ms, or later when it is busy.
const MAX_SAVED: Duration = Duration::from_millis(10);
/// Sound and repairs go at once and are paid for later; repairs wait when so much is owed.
const MAX_OWED: Duration = Duration::from_millis(200);
/// At least one packet may be saved up for.
const PACKET_BYTES: i64 = (MAX_PAYLOAD + PACKET_OVERHEAD) as i64;

/// The pace of a line that is too thin; none of one that is not.
#[derive(Debug, Default)]
pub(super) struct Pace {
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    bytes_per_second: u64,
    /// Bytes that may be sent; below 0 what is owed.
    credit: i64,
    refilled_at: Instant,
}

impl Pace {
    /// Whether the line is too thin for its stream.
    pub(super) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Follows the estimate.
    pub(super) fn set(&mut self, bits_per_second: Option<u64>, now: Instant) {
        let Some(bits_per_second) = bits_per_second else {
            self.limit = None;
            return;
        };
        let bytes_per_second = (bits_per_second / 8).max(1);
        match &mut self.limit {
            Some(limit) => {
                limit.refill(now);
                limit.bytes_per_second = bytes_per_second;
            }
            None => {
                self.limit = Some(Limit { bytes_per_second, credit: 0, refilled_at: now });
            }
        }
    }

    /// Time passed.
    pub(super) fn refill(&mut self, now: Instant) {
        if let Some(limit) = &mut self.limit {
            limit.refill(now);
        }
    }

    /// How many packets of so many bytes may go.
    pub(super) fn packets(&self, packet_bytes: usize) -> usize {
        self.limit.as_ref().map_or(usize::MAX, |limit| {
            let credit = usize::try_from(limit.credit).unwrap_or(0);
            // The last one may be paid for in part.
            credit.div_ceil(packet_bytes.max(1))
        })
    }

    /// Whether a repair may go.
    pub(super) fn has_room_for_repair(&self) -> bool {
        self.limit.as_ref().is_none_or(|limit| limit.credit > -limit.bytes_in(MAX_OWED))
    }

    /// Bytes were sent.
    pub(super) fn spend(&mut self, bytes: usize) {
        if let Some(limit) = &mut self.limit {
            limit.credit = limit.credit.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// How long so many bytes take.
    pub(super) fn time_for(&self, bytes: usize) -> Duration {
        self.limit.as_ref().map_or(Duration::ZERO, |limit| {
            let micros = (bytes as u64).saturating_mul(1_000_000) / limit.bytes_per_second;
            Duration::from_micros(micros)
        })
    }
}

impl Limit {
    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        let most = self.bytes_in(MAX_SAVED).max(PACKET_BYTES);
        let earned = self.bytes_in(elapsed);
        // Less than a byte is left to the next time.
        if earned > 0 {
            self.credit = self.credit.saturating_add(earned).min(most);
            self.refilled_at = now;
        }
    }

    fn bytes_in(&self, time: Duration) -> i64 {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bytes = self.bytes_per_second.saturating_mul(micros) / 1_000_000;
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is asked for and whenever, in the long run no more leaves than the line carries.
        #[test]
        fn no_more_leaves_than_the_line_carries(
            kilobits in 64u64..20_000,
            steps in prop::collection::vec((1u64..5_000, 1usize..1_300, 0usize..50), 100..400),
        ) {
            #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
            let mut now = Instant::now();
            let mut pace = Pace::default();
            prop_assert_eq!(pace.packets(1_200), usize::MAX);
            pace.set(Some(kilobits * 1_000), now);
            let (mut sent, mut elapsed) = (0, 0);
            for (micros, bytes, wanted) in steps {
                now += Duration::from_micros(micros);
                elapsed += micros;
                pace.refill(now);
                let packets = pace.packets(bytes).min(wanted);
                pace.spend(packets * bytes);
                sent += packets * bytes;
            }
            let most = kilobits * elapsed / 8_000 + kilobits * 10 / 8 + 2 * PACKET_BYTES as u64;
            prop_assert!(sent as u64 <= most, "{} of {}", sent, most);
        }
    }

    #[test]
    fn what_is_owed_holds_repairs_back() {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.spend(1 << 40);
        assert!(pace.has_room_for_repair());
        pace.set(Some(800_000), now);
        pace.spend(19_000);
        assert!(pace.has_room_for_repair() && pace.packets(1) == 0);
        pace.spend(1_000);
        assert!(!pace.has_room_for_repair());
        pace.refill(now + Duration::from_millis(100));
        assert!(pace.has_room_for_repair() && pace.packets(1) == 0);
        assert_eq!(pace.time_for(100_000), Duration::from_secs(1));
    }
}
