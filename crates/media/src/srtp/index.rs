//! Which packet indices were used: the sender's guard against reuse, the receiver's against replay.

use super::{RTP_INDEX_END, SrtpError};

/// SSRCs that one key sends for: picture and sound with a retransmission stream each are 4; twice
/// that, so that tracks may be replaced.
pub(super) const MAX_SENT_SSRCS: usize = 8;

/// SSRCs that a viewer's feedback may come from: one for each track that it receives, or one for
/// all; twice what we send for.
pub(super) const MAX_RECEIVED_SSRCS: usize = 2 * MAX_SENT_SSRCS;

/// The highest index sent, for each SSRC.
#[derive(Debug, Default)]
pub(super) struct SentIndices {
    /// At most [`MAX_SENT_SSRCS`], so that a linear search is the fastest.
    highest: Vec<(u32, u64)>,
}

impl SentIndices {
    /// Whether packets of this SSRC were sent up to `index`, so that it may have been used.
    pub(super) fn reaches(&self, ssrc: u32, index: u64) -> bool {
        self.highest.iter().any(|(known, highest)| *known == ssrc && index <= *highest)
    }

    /// Takes `index` for this SSRC, once and for all.
    pub(super) fn claim(&mut self, ssrc: u32, index: u64) -> Result<(), SrtpError> {
        if index >= RTP_INDEX_END {
            return Err(SrtpError::IndexExhausted);
        }
        if let Some((_, highest)) = self.highest.iter_mut().find(|(known, _)| *known == ssrc) {
            if index <= *highest {
                return Err(SrtpError::IndexReused { ssrc, index });
            }
            *highest = index;
            return Ok(());
        }
        if self.highest.len() == MAX_SENT_SSRCS {
            return Err(SrtpError::TooManySsrcs { ssrc, max: MAX_SENT_SSRCS });
        }
        self.highest.push((ssrc, index));
        Ok(())
    }
}

/// The replay list of RFC 3711 §3.3.2, for each SSRC.
#[derive(Debug, Default)]
pub(super) struct ReplayWindows {
    /// At most [`MAX_RECEIVED_SSRCS`].
    windows: Vec<(u32, ReplayWindow)>,
}

impl ReplayWindows {
    /// Whether a packet may be new. Changes nothing: it is not authenticated yet.
    pub(super) fn check(&self, ssrc: u32, index: u32) -> Result<(), SrtpError> {
        match self.windows.iter().find(|(known, _)| *known == ssrc) {
            Some((_, window)) if window.admits(index) => Ok(()),
            Some(_) => Err(SrtpError::Replayed),
            None if self.windows.len() < MAX_RECEIVED_SSRCS => Ok(()),
            None => Err(SrtpError::TooManySsrcs { ssrc, max: MAX_RECEIVED_SSRCS }),
        }
    }

    /// Remembers an authenticated packet that [`check`](Self::check) let pass. True when it has the
    /// highest index so far.
    pub(super) fn record(&mut self, ssrc: u32, index: u32) -> bool {
        let Some((_, window)) = self.windows.iter_mut().find(|(known, _)| *known == ssrc) else {
            self.windows.push((ssrc, ReplayWindow::starting_at(index)));
            return true;
        };
        let is_newest = index > window.highest;
        window.record(index);
        is_newest
    }
}

/// ```text
/// bit   127 .. 2         1         0
///       ..     highest-2 highest-1 highest      1: seen
/// ```
#[derive(Debug)]
struct ReplayWindow {
    highest: u32,
    seen: u128,
}

impl ReplayWindow {
    fn starting_at(index: u32) -> Self {
        Self { highest: index, seen: 1 }
    }

    fn admits(&self, index: u32) -> bool {
        let Some(behind) = self.highest.checked_sub(index) else { return true };
        // `checked_shr` is `None` from 128 on: too old to tell, so refused.
        self.seen.checked_shr(behind).is_some_and(|seen| seen & 1 == 0)
    }

    fn record(&mut self, index: u32) {
        match self.highest.checked_sub(index) {
            Some(behind) => self.seen |= 1u128.checked_shl(behind).unwrap_or(0),
            None => {
                let ahead = index - self.highest;
                self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
                self.highest = index;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_index_is_claimed_once_and_never_below_the_highest() {
        let mut sent = SentIndices::default();
        assert_eq!(sent.claim(1, 5), Ok(()));
        assert_eq!(sent.claim(2, 5), Ok(()), "another SSRC has its own indices");
        assert_eq!(sent.claim(1, 5), Err(SrtpError::IndexReused { ssrc: 1, index: 5 }));
        assert_eq!(sent.claim(1, 4), Err(SrtpError::IndexReused { ssrc: 1, index: 4 }));
        assert_eq!(sent.claim(1, 6), Ok(()));
        assert_eq!(sent.claim(1, RTP_INDEX_END - 1), Ok(()));
        assert_eq!(sent.claim(1, RTP_INDEX_END), Err(SrtpError::IndexExhausted));
    }

    #[test]
    fn a_key_serves_a_bounded_number_of_streams() {
        let mut sent = SentIndices::default();
        let mut seen = ReplayWindows::default();
        for ssrc in 0..8 {
            assert_eq!(sent.claim(ssrc, 0), Ok(()));
        }
        assert_eq!(sent.claim(8, 0), Err(SrtpError::TooManySsrcs { ssrc: 8, max: 8 }));
        assert_eq!(sent.claim(7, 1), Ok(()), "the known ones go on");

        for ssrc in 0..16 {
            assert_eq!(seen.check(ssrc, 1), Ok(()));
            seen.record(ssrc, 1);
        }
        assert_eq!(seen.check(16, 1), Err(SrtpError::TooManySsrcs { ssrc: 16, max: 16 }));
        assert_eq!(seen.check(15, 2), Ok(()), "the known ones go on");
    }

    proptest! {
        /// Against a plain set of what was seen.
        #[test]
        fn the_window_admits_what_is_new_and_not_too_old(
            steps in prop::collection::vec(prop_oneof![0u32..400, 0..0x8000_0000u32], 1..300),
        ) {
            let mut windows = ReplayWindows::default();
            let mut seen = HashSet::new();
            let mut highest = 0;
            for index in steps {
                let too_old = !seen.is_empty() && highest >= 128 && index <= highest - 128;
                let expected = !too_old && !seen.contains(&index);
                prop_assert_eq!(windows.check(7, index).is_ok(), expected, "index {}", index);
                if expected {
                    windows.record(7, index);
                    seen.insert(index);
                    highest = highest.max(index);
                }
            }
        }
    }
}
