//! Which packet indices were used: the sender's guard against reuse, the receiver's against replay.

use super::{RTP_INDEX_END, SrtpError};

/// SSRCs that one key sends for: picture and sound with a retransmission stream each are 4; twice
/// that, so that tracks may be replaced.
pub(super) const MAX_SENT_SSRCS: usize = 8;

/// SSRCs that a viewer's feedback may come from: one for each track that it receives, or one for
/// all; twice what we send for.
pub(super) const MAX_RECEIVED_SSRCS: usize = 2 * MAX_SENT_SSRCS;

/// Which indices were used, for each SSRC.
///
/// Nearly all packets rise ([`claim`](Self::claim)). Sound that is passed on comes in its sender's
/// order, and a packet that was overtaken on its way takes the index that was left for it
/// ([`claim_late`](Self::claim_late)): once, and while it is remembered whether that was used.
#[derive(Debug, Default)]
pub(super) struct SentIndices {
    /// At most [`MAX_SENT_SSRCS`], so that a linear search is the fastest.
    streams: Vec<(u32, Window)>,
}

impl SentIndices {
    /// Whether a packet of this SSRC may have used `index`: exactly known for the newest
    /// [`LATE_INDICES`]; of those before only that they can be claimed no more.
    pub(super) fn may_have_used(&self, ssrc: u32, index: u64) -> bool {
        let window = self.streams.iter().find(|(known, _)| *known == ssrc);
        window.is_some_and(|(_, window)| match window.highest.checked_sub(index) {
            Some(behind) => behind >= LATE_INDICES || window.has(behind),
            None => false,
        })
    }

    /// Whether [`Self::claim_late`] would take `index`, as far as this SSRC goes.
    pub(super) fn is_free(&self, ssrc: u32, index: u64) -> bool {
        let window = self.streams.iter().find(|(known, _)| *known == ssrc);
        window.is_none_or(|(_, window)| window.is_free(index))
    }

    /// Takes `index` for this SSRC, once and for all; it must be above all before.
    pub(super) fn claim(&mut self, ssrc: u32, index: u64) -> Result<(), SrtpError> {
        let window = self.window(ssrc, index)?;
        if window.is_some_and(|window| index <= window.highest) {
            return Err(SrtpError::IndexReused { ssrc, index });
        }
        self.take(ssrc, index)
    }

    /// Takes `index` for this SSRC, once and for all; it may be up to [`LATE_INDICES`] - 1 below the
    /// highest if it was left out until now.
    pub(super) fn claim_late(&mut self, ssrc: u32, index: u64) -> Result<(), SrtpError> {
        let window = self.window(ssrc, index)?;
        if window.is_some_and(|window| !window.is_free(index)) {
            return Err(SrtpError::IndexReused { ssrc, index });
        }
        self.take(ssrc, index)
    }

    /// What was used of an SSRC that is known; an error when there is no place for `index` at all.
    fn window(&self, ssrc: u32, index: u64) -> Result<Option<&Window>, SrtpError> {
        if index >= RTP_INDEX_END {
            return Err(SrtpError::IndexExhausted);
        }
        let known = self.streams.iter().find(|(known, _)| *known == ssrc);
        if known.is_none() && self.streams.len() == MAX_SENT_SSRCS {
            return Err(SrtpError::TooManySsrcs { ssrc, max: MAX_SENT_SSRCS });
        }
        Ok(known.map(|(_, window)| window))
    }

    fn take(&mut self, ssrc: u32, index: u64) -> Result<(), SrtpError> {
        match self.streams.iter_mut().find(|(known, _)| *known == ssrc) {
            Some((_, window)) => window.take(index),
            None => self.streams.push((ssrc, Window { highest: index, used: 1 })),
        }
        Ok(())
    }
}

/// Indices below the highest, itself among them, of which is remembered whether they were used. Of
/// packets of 20 ms 2.5 s, which is longer than anybody conceals a gap; libsrtp's receivers refuse
/// what is more than 128 behind by default.
pub(crate) const LATE_INDICES: u64 = 128;

/// ```text
/// bit   127 .. 2         1         0
///       ..     highest-2 highest-1 highest      1: used
/// ```
#[derive(Debug)]
struct Window {
    highest: u64,
    used: u128,
}

impl Window {
    fn has(&self, behind: u64) -> bool {
        let shift = u32::try_from(behind).unwrap_or(u32::MAX);
        self.used.checked_shr(shift).is_some_and(|used| used & 1 == 1)
    }

    /// What is too old to tell is not.
    fn is_free(&self, index: u64) -> bool {
        match self.highest.checked_sub(index) {
            Some(behind) => behind < LATE_INDICES && !self.has(behind),
            None => true,
        }
    }

    fn take(&mut self, index: u64) {
        match self.highest.checked_sub(index) {
            Some(behind) => self.used |= 1 << behind.min(LATE_INDICES - 1),
            None => {
                let ahead = u32::try_from(index - self.highest).unwrap_or(u32::MAX);
                self.used = self.used.checked_shl(ahead).unwrap_or(0) | 1;
                self.highest = index;
            }
        }
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

    #[test]
    fn what_was_left_out_is_claimed_late_once() {
        let mut sent = SentIndices::default();
        for index in [10, 11, 14] {
            assert_eq!(sent.claim_late(1, index), Ok(()));
        }
        assert!(sent.is_free(1, 12) && !sent.may_have_used(1, 12));
        assert_eq!(sent.claim(1, 12), Err(SrtpError::IndexReused { ssrc: 1, index: 12 }));
        assert_eq!(sent.claim_late(1, 12), Ok(()));
        assert!(!sent.is_free(1, 12) && sent.may_have_used(1, 12));
        assert_eq!(sent.claim_late(1, 12), Err(SrtpError::IndexReused { ssrc: 1, index: 12 }));
        assert_eq!(sent.claim_late(1, 14 + LATE_INDICES), Ok(()));
        let gone = Err(SrtpError::IndexReused { ssrc: 1, index: 13 });
        assert_eq!(sent.claim_late(1, 13), gone, "left out, and too old to tell");
        assert!(sent.may_have_used(1, 13) && sent.is_free(1, 15));
    }

    proptest! {
        /// Against a plain set of what was claimed: none is claimed twice, and what rises always is.
        #[test]
        fn no_index_is_claimed_twice(
            steps in prop::collection::vec(
                (any::<bool>(), prop_oneof![0u64..400, 0u64..1 << 47]),
                1..300,
            ),
        ) {
            let mut sent = SentIndices::default();
            let mut used = HashSet::new();
            let mut highest = None;
            for (is_late, index) in steps {
                let rises = highest.is_none_or(|highest| index > highest);
                let claimed =
                    if is_late { sent.claim_late(7, index) } else { sent.claim(7, index) };
                let in_window = highest.is_some_and(|highest| index + LATE_INDICES > highest);
                let expected = rises || is_late && in_window && !used.contains(&index);
                prop_assert_eq!(claimed.is_ok(), expected, "index {}", index);
                if expected {
                    prop_assert!(used.insert(index));
                    highest = highest.max(Some(index));
                }
                prop_assert!(!used.contains(&index) || sent.may_have_used(7, index));
            }
        }

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
