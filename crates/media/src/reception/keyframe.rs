//! The first picture that can be decoded alone: where it begins, and that all of it is there.
//!
//! It looks at the first bytes of payloads and at sequence numbers, and decodes nothing.

use crate::frame::Codec;

/// Watches for the first whole keyframe of one stream.
#[derive(Debug, Default)]
pub(super) struct KeyframeSearch {
    /// The keyframe that is coming in.
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    timestamp: u32,
    /// Of the packet that is due.
    next: u16,
    /// A slice of it came, not its parameter sets only.
    has_picture: bool,
}

/// What a payload begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Parameter sets: what may stand before a keyframe's slices.
    Parameters,
    /// A keyframe's first bytes.
    Picture,
    /// Anything else.
    Other,
}

impl KeyframeSearch {
    /// The next packet in order of arrival; true when it completes a keyframe.
    pub(super) fn handle(
        &mut self,
        codec: Codec,
        (sequence, timestamp, marker): (u16, u32, bool),
        payload: &[u8],
    ) -> bool {
        let content = Content::of(codec, payload);
        self.open = match self.open {
            Some(open) if open.timestamp == timestamp && open.next == sequence => Some(Open {
                next: sequence.wrapping_add(1),
                has_picture: open.has_picture || content == Content::Picture,
                ..open
            }),
            Some(_) | None if content == Content::Other => None,
            Some(_) | None => Some(Open {
                timestamp,
                next: sequence.wrapping_add(1),
                has_picture: content == Content::Picture,
            }),
        };
        marker && self.open.is_some_and(|open| open.has_picture)
    }
}

impl Content {
    fn of(codec: Codec, payload: &[u8]) -> Self {
        let kind = match codec {
            Codec::H264 => Self::of_h264(payload),
            Codec::H265 => Self::of_h265(payload),
            Codec::Vp8 => is_vp8_keyframe(payload).map(Self::picture_if),
            Codec::Vp9 => payload.first().map(|first| Self::picture_if(first & 0x48 == 0x08)),
            // N: a new coded video sequence begins (AV1 RTP §4.4).
            Codec::Av1 => payload.first().map(|first| Self::picture_if(first & 0x08 != 0)),
            Codec::Opus | Codec::Pcmu | Codec::Pcma => None,
        };
        kind.unwrap_or(Self::Other)
    }

    fn picture_if(is_keyframe: bool) -> Self {
        if is_keyframe { Self::Picture } else { Self::Other }
    }

    /// RFC 6184 §5.2: a unit alone, the first one of a STAP-A, or the first fragment of an FU-A.
    /// Of an aggregate all units count.
    fn of_h264(payload: &[u8]) -> Option<Self> {
        const STAP_A: u8 = 24;
        const FU_A: u8 = 28;
        let of_unit = |kind: u8| match kind {
            5 => Self::Picture,
            7 => Self::Parameters,
            _ => Self::Other,
        };
        match payload.first()? & 0x1f {
            STAP_A => {
                let mut rest = payload.get(1..)?;
                let mut found = Self::Other;
                while let Some((size, behind)) = rest.split_first_chunk::<2>() {
                    let (unit, behind) =
                        behind.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
                    match of_unit(unit.first()? & 0x1f) {
                        Self::Picture => return Some(Self::Picture),
                        Self::Parameters => found = Self::Parameters,
                        Self::Other => {}
                    }
                    rest = behind;
                }
                Some(found)
            }
            FU_A => {
                let header = payload.get(1)?;
                Some(if header & 0x80 != 0 { of_unit(header & 0x1f) } else { Self::Other })
            }
            kind => Some(of_unit(kind)),
        }
    }

    /// RFC 7798 §4.4: types 16 to 21 are random access points, 32 to 34 parameter sets.
    fn of_h265(payload: &[u8]) -> Option<Self> {
        const AGGREGATE: u8 = 48;
        const FRAGMENT: u8 = 49;
        let of_unit = |kind: u8| match kind {
            16..=21 => Self::Picture,
            32..=34 => Self::Parameters,
            _ => Self::Other,
        };
        let kind = |first: u8| first >> 1 & 0x3f;
        match kind(*payload.first()?) {
            AGGREGATE => Some(of_unit(kind(*payload.get(4)?))),
            FRAGMENT => {
                let header = payload.get(2)?;
                Some(if header & 0x80 != 0 { of_unit(header & 0x3f) } else { Self::Other })
            }
            kind => Some(of_unit(kind)),
        }
    }
}

/// The P bit behind the payload descriptor of a picture's first packet (RFC 7741 §4.2, §4.3).
fn is_vp8_keyframe(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    let starts_picture = first & 0x10 != 0 && first & 0x07 == 0;
    let mut at = 1;
    if first & 0x80 != 0 {
        let extensions = *payload.get(at)?;
        at += 1;
        if extensions & 0x80 != 0 {
            at += if *payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        at += usize::from(extensions & 0x40 != 0) + usize::from(extensions & 0x30 != 0);
    }
    Some(starts_picture && payload.get(at)? & 0x01 == 0)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Frame, NtpTime};
    use crate::packetise::packetise;

    fn payloads(units: &[Vec<u8>], keyframe: bool) -> Vec<Vec<u8>> {
        let frame = Frame {
            forwarded: None,
            codec: Codec::H264,
            ticks: 0,
            captured: NtpTime(0),
            keyframe,
            discontinuity: false,
            units: units.iter().map(|unit| Bytes::copy_from_slice(unit)).collect(),
        };
        packetise(&frame).payloads().map(<[u8]>::to_vec).collect()
    }

    fn keyframe() -> Vec<Vec<u8>> {
        payloads(&[vec![0x67; 20], vec![0x68; 5], vec![0x65; 4_000]], true)
    }

    /// Where in `payloads` the search is satisfied; `lost` never arrives.
    fn found(payloads: &[Vec<u8>], lost: Option<usize>) -> Option<usize> {
        let mut search = KeyframeSearch::default();
        let last = payloads.len() - 1;
        (0..payloads.len()).filter(|index| Some(*index) != lost).find(|index| {
            let place = (u16::MAX - 1).wrapping_add(*index as u16);
            search.handle(Codec::H264, (place, 7, *index == last), &payloads[*index])
        })
    }

    #[test]
    fn a_keyframe_is_there_with_its_last_packet_and_not_with_a_gap() {
        let packets = keyframe();
        assert_eq!(found(&packets, None), Some(packets.len() - 1));
        for lost in 1..packets.len() {
            assert_eq!(found(&packets, Some(lost)), None, "without packet {lost}");
        }
        // The parameter sets may have come another way.
        assert_eq!(found(&packets, Some(0)), Some(packets.len() - 1));
    }

    #[test]
    fn parameter_sets_alone_and_other_pictures_are_none() {
        assert_eq!(found(&payloads(&[vec![0x67; 20], vec![0x68; 5]], false), None), None);
        assert_eq!(found(&payloads(&[vec![0x41; 3_000]], false), None), None);
    }

    #[test]
    fn keyframes_of_the_other_codecs_are_told_by_their_first_bytes() {
        let cases: [(Codec, &[u8], bool); 9] = [
            (Codec::H265, &[19 << 1, 1, 0], true),
            (Codec::H265, &[1 << 1, 1, 0], false),
            (Codec::H265, &[49 << 1, 1, 0x80 | 19], true),
            (Codec::Vp8, &[0x10, 0x00], true),
            (Codec::Vp8, &[0x10, 0x01], false),
            (Codec::Vp8, &[0x90, 0x80, 0x81, 0x02, 0x00], true),
            (Codec::Vp9, &[0x8c], true),
            (Codec::Vp9, &[0xcc], false),
            (Codec::Av1, &[0x18], true),
        ];
        for (codec, payload, expected) in cases {
            let mut search = KeyframeSearch::default();
            assert_eq!(
                search.handle(codec, (1, 1, true), payload),
                expected,
                "{codec:?} {payload:x?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_payload_is_taken_without_panic(payload: Vec<u8>) {
            for codec in [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::Opus] {
                let _ = Content::of(codec, &payload);
            }
        }
    }
}
