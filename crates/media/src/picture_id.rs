//! Picture ids of VP8 (RFC 7741 §4.2) and VP9 (RFC 9628 §4.2): in 15 bits, whatever the publisher's.
//!
//! A publisher may count its pictures in 7 bits or in 15. Chromium counts in 15 whatever comes: where
//! 7 bits wrap, it takes all that follows up to the next keyframe for pictures that it had long ago.
//! What viewers are given goes on there.
//!
//! ```text
//! 7 bits:  |0|  PictureID  |
//! 15 bits: |1|  PictureID              |
//! ```

use bytes::Bytes;

/// M: the id has 15 bits.
const LONG: u8 = 0x80;
/// Ids in 7 bits are counted modulo this mask plus one.
const SHORT_MASK: u16 = 0x7f;
/// The same of ids in 15 bits.
const LONG_MASK: u16 = 0x7fff;

/// The id in one payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PictureId {
    /// Where in the payload it stands, in bytes.
    at: usize,
    length: Length,
    value: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Short,
    Long,
}

impl PictureId {
    /// The id that stands `at` so many bytes behind the payload's beginning; `None` when the payload
    /// ends before it does.
    pub(crate) fn read(payload: &[u8], at: usize) -> Option<Self> {
        let &first = payload.get(at)?;
        if first & LONG == 0 {
            return Some(Self { at, length: Length::Short, value: u16::from(first) });
        }
        let &second = payload.get(at + 1)?;
        let value = u16::from_be_bytes([first, second]) & LONG_MASK;
        Some(Self { at, length: Length::Long, value })
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(self) -> usize {
        match self.length {
            Length::Short => 1,
            Length::Long => 2,
        }
    }
}

/// The ids of one track, as they are passed on.
#[derive(Debug, Default)]
pub(crate) struct PictureIds {
    /// The newest one as it came.
    theirs: Option<u16>,
    /// The same one as it was passed on.
    ours: u16,
}

impl PictureIds {
    /// The payload with its id in 15 bits: one byte longer where the publisher uses 7.
    pub(crate) fn renumber(&mut self, payload: Bytes, id: PictureId) -> Bytes {
        let ours = self.extend(id);
        if id.length == Length::Long && id.value == ours {
            return payload;
        }
        let (before, behind) = (&payload[..id.at], &payload[id.at + id.bytes()..]);
        let [high, low] = ours.to_be_bytes();
        [before, &[high | LONG, low], behind].concat().into()
    }

    /// As many pictures behind the last one as the publisher says. How many times its 7 bits have
    /// wrapped in a gap is not known, nor of use: behind a gap a keyframe begins anew.
    fn extend(&mut self, id: PictureId) -> u16 {
        let mask = match id.length {
            Length::Short => SHORT_MASK,
            Length::Long => LONG_MASK,
        };
        let before = self.theirs.replace(id.value);
        let step = id.value.wrapping_sub(before.unwrap_or_default()) & mask;
        self.ours = self.ours.wrapping_add(step) & LONG_MASK;
        self.ours
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What becomes of payloads whose id stands behind one byte.
    fn renumbered<const N: usize>(payloads: [&'static [u8]; N]) -> [Bytes; N] {
        let mut ids = PictureIds::default();
        payloads.map(|payload| {
            let id = PictureId::read(payload, 1).unwrap();
            ids.renumber(Bytes::from_static(payload), id)
        })
    }

    #[test]
    fn seven_bits_become_fifteen_and_go_on_where_they_wrap() {
        let [last, same, first] = renumbered([&[9, 127, 1, 2], &[9, 127, 3], &[9, 0, 4]]);
        assert_eq!(last[..], [9, 0x80, 127, 1, 2]);
        assert_eq!(same[..], [9, 0x80, 127, 3], "the same picture's second packet");
        assert_eq!(first[..], [9, 0x80, 128, 4]);
    }

    #[test]
    fn fifteen_bits_stay_as_they_are() {
        let payloads: [&[u8]; 3] = [&[9, 0xff, 0xff, 1], &[9, 0x80, 0x00, 2], &[9, 0x80, 0x01]];
        assert_eq!(renumbered(payloads), payloads);
    }

    #[test]
    fn a_publisher_that_goes_on_in_fifteen_bits_skips_nothing() {
        // RFC 7741 §4.2 lets it do so behind 127.
        let [_, _, third, fourth] =
            renumbered([&[9, 127], &[9, 127], &[9, 0x80, 128], &[9, 0x80, 129]]);
        assert_eq!((&third[..], &fourth[..]), (&[9, 0x80, 128][..], &[9, 0x80, 129][..]));
        let [_, wrapped, _, long] = renumbered([&[9, 127], &[9, 0], &[9, 127], &[9, 0x80, 128]]);
        assert_eq!(wrapped[..], [9, 0x80, 128]);
        assert_eq!(long[..], [9, 0x81, 0x00], "one behind 255");
    }

    #[test]
    fn an_id_that_is_cut_short_is_none() {
        assert_eq!(PictureId::read(&[9], 1), None);
        assert_eq!(PictureId::read(&[9, 0x80], 1), None);
    }

    proptest! {
        #[test]
        fn any_rising_ids_of_seven_bits_rise_by_as_much(
            start in 0..128_u16,
            steps in prop::collection::vec(0..128_u16, 1..600),
        ) {
            let mut ids = PictureIds::default();
            let (mut theirs, mut ours) = (start, start);
            ids.extend(PictureId::read(&[theirs as u8], 0).unwrap());
            for step in steps {
                theirs = (theirs + step) % 128;
                ours = (ours + step) % (1 << 15);
                prop_assert_eq!(ids.extend(PictureId::read(&[theirs as u8], 0).unwrap()), ours);
            }
        }
    }
}
