//! How many messages a client may send: a bucket of tokens that fills with time.

use control::Timestamp;

/// What a full bucket holds: a start with 30 trickled candidates of a machine with many addresses, an
/// offer and an answer, four times over.
pub(super) const TOKENS_MAX: u32 = 200;

/// What comes back each second. A card sends a ping every 30 s and retries every 2 s.
pub(super) const TOKENS_A_SECOND: u32 = 50;

/// What a message costs that makes the media plane work. An offer takes a thread of low priority
/// 2.5 ms: at this price a client keeps 2.5 % of it busy.
pub(super) const COSTLY: u32 = 5;

/// Bytes of a message that cost a token more: what a client may have in work at once is 3 MiB, and 800 KiB
/// a second after that. An offer has half of it.
pub(super) const BYTES_A_TOKEN: usize = 16 * 1024;

/// Messages without tokens until the client is given up. It is told of the first.
pub(super) const STRIKES_MAX: u32 = 100;

/// A thousandth of a token, so that millisecond steps are exact.
const MILLI: u64 = 1000;

/// The tokens of one client.
#[derive(Debug)]
pub(super) struct Bucket {
    milli_tokens: u64,
    filled: Timestamp,
    /// Messages over the limit since the bucket was last full again.
    strikes: u32,
}

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Read,
    /// Not read, and the client is told.
    Tell,
    /// Not read.
    Drop,
    /// The client is closed.
    Close,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(now: Timestamp) -> Self {
        Self { milli_tokens: u64::from(TOKENS_MAX) * MILLI, filled: now, strikes: 0 }
    }

    /// A message that costs so many tokens came.
    pub(super) fn take(&mut self, cost: u32, now: Timestamp) -> Verdict {
        self.fill(now);
        let cost = u64::from(cost) * MILLI;
        if let Some(rest) = self.milli_tokens.checked_sub(cost) {
            self.milli_tokens = rest;
            return Verdict::Read;
        }
        self.strikes += 1;
        match self.strikes {
            1 => Verdict::Tell,
            strikes if strikes >= STRIKES_MAX => Verdict::Close,
            _ => Verdict::Drop,
        }
    }

    fn fill(&mut self, now: Timestamp) {
        let elapsed = now.saturating_since(self.filled).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let gained = elapsed.saturating_mul(u64::from(TOKENS_A_SECOND));
        let full = u64::from(TOKENS_MAX) * MILLI;
        self.milli_tokens = self.milli_tokens.saturating_add(gained).min(full);
        self.filled = self.filled.max(now);
        if self.milli_tokens == full {
            self.strikes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_read_a_flood_is_told_once_and_closed_and_patience_forgives() {
        let mut now = Timestamp::from_millis(5);
        let mut bucket = Bucket::new(now);
        for _ in 0..TOKENS_MAX {
            assert_eq!(bucket.take(1, now), Verdict::Read);
        }
        assert_eq!(bucket.take(1, now), Verdict::Tell);
        assert_eq!(bucket.take(1, now), Verdict::Drop);
        now = now + Duration::from_millis(20);
        assert_eq!(bucket.take(1, now), Verdict::Read, "a fiftieth of a second is a token");

        now = now + Duration::from_secs(5);
        assert_eq!(bucket.take(COSTLY, now), Verdict::Read);
        for _ in 0..TOKENS_MAX - COSTLY {
            assert_eq!(bucket.take(1, now), Verdict::Read);
        }
        assert_eq!(bucket.take(COSTLY, now), Verdict::Tell, "a full bucket forgives");
        for _ in 2..STRIKES_MAX {
            assert_eq!(bucket.take(1, now), Verdict::Drop);
        }
        assert_eq!(bucket.take(1, now), Verdict::Close);
    }
}
