//! NAL units: their types, and splitting a buffer into them without copying.

use bytes::Bytes;

use crate::h264::error::H264Error;

/// The kinds of NAL unit that this crate tells apart (ITU-T H.264 table 7-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NalType {
    /// A slice of a picture that is not IDR, whole (1) or its data partition A (2).
    Slice,
    /// Data partitions B and C (3, 4), which have no slice header.
    Partition,
    /// A slice of an IDR picture (5).
    IdrSlice,
    /// Supplemental enhancement information (6).
    Sei,
    /// Sequence parameter set (7).
    Sps,
    /// Picture parameter set (8).
    Pps,
    /// Everything that no browser needs: delimiters, end markers, filler (9 to 12), extensions for
    /// scalable and multi-view coding (13 to 21), reserved and unspecified types. Types 24 to 31
    /// must not be sent at all: they mean something else in RTP (RFC 6184 §5.2).
    Other,
}

impl NalType {
    /// The type in a NAL unit's first byte; `None` for an empty one.
    pub fn of(nal: &[u8]) -> Option<Self> {
        Some(match nal.first()? & 0x1f {
            1 | 2 => Self::Slice,
            3 | 4 => Self::Partition,
            5 => Self::IdrSlice,
            6 => Self::Sei,
            7 => Self::Sps,
            8 => Self::Pps,
            _ => Self::Other,
        })
    }
}

/// Whether an access unit may begin with this NAL unit: anything but a slice that is not the first of
/// its picture, or a data partition.
pub(crate) fn begins_picture(nal: &[u8]) -> bool {
    match NalType::of(nal) {
        // first_mb_in_slice is 0, which is written as a single 1.
        Some(NalType::Slice | NalType::IdrSlice) => nal.get(1).is_some_and(|byte| byte & 0x80 != 0),
        Some(NalType::Partition) | None => false,
        Some(NalType::Sei | NalType::Sps | NalType::Pps | NalType::Other) => true,
    }
}

/// Length of the prefix in front of each NAL unit.
const PREFIX: usize = 4;

/// Splits 4-byte length prefixed NAL units (AVCC).
///
/// The units share `data`; empty ones are left out. Fails where a length runs over the end.
pub fn split_avcc(data: &Bytes) -> Result<Vec<Bytes>, H264Error> {
    let mut units = Vec::new();
    let mut offset = 0;
    while offset < data.len() {
        let available = data.len() - offset;
        let Some(prefix) = data[offset..].first_chunk::<PREFIX>() else {
            return Err(H264Error::Length { offset, claimed: PREFIX, available });
        };
        let (start, available) = (offset + PREFIX, available - PREFIX);
        let claimed = u32::from_be_bytes(*prefix) as usize;
        if claimed > available {
            return Err(H264Error::Length { offset: start, claimed, available });
        }
        if claimed > 0 {
            units.push(data.slice(start..start + claimed));
        }
        offset = start + claimed;
    }
    Ok(units)
}

/// Splits a byte stream with start codes (Annex B).
///
/// The units share `data`. What stands before the first start code is left out, as are empty units
/// and the zero bytes behind a unit (a NAL unit never ends in one, ITU-T H.264 §7.4.1).
pub fn split_annex_b(data: &Bytes) -> Vec<Bytes> {
    let mut units = Vec::new();
    let mut next = start_code(data, 0);
    while let Some(code) = next {
        let start = code + 3;
        next = start_code(data, start);
        let raw = &data[start..next.unwrap_or(data.len())];
        let length = raw.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if length > 0 {
            units.push(data.slice(start..start + length));
        }
    }
    units
}

/// Where the next `00 00 01` begins, at `from` or behind it.
fn start_code(data: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    // The third byte decides how far the search may jump.
    while let Some(third) = data.get(at + 2) {
        match third {
            0 => at += 1,
            1 if data[at] == 0 && data[at + 1] == 0 => return Some(at),
            _ => at += 3,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn annex_b_with_long_and_short_codes_and_trailing_zeros() {
        let data =
            Bytes::from_static(&[9, 0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3, 0, 0, 0, 0, 1, 0x65]);
        assert_eq!(split_annex_b(&data), [&[0x67, 1, 2][..], &[0x68, 3], &[0x65]]);
        assert!(split_annex_b(&Bytes::from_static(&[0x67, 1, 2])).is_empty());
        assert!(split_annex_b(&Bytes::from_static(&[0, 0, 1, 0, 0, 1])).is_empty());
    }

    #[test]
    fn units_share_the_buffer() {
        let data = Bytes::from_static(&[0, 0, 0, 2, 0x41, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0x42]);
        let units = split_avcc(&data).unwrap();
        assert_eq!(units, [&[0x41, 7][..], &[0x42]]);
        assert_eq!(units[0].as_ptr(), data[4..].as_ptr());
    }

    #[test]
    fn a_length_over_the_end_names_the_place() {
        let data = Bytes::from_static(&[0, 0, 0, 1, 0x41, 0, 0, 0, 9, 1, 2]);
        assert_eq!(
            split_avcc(&data),
            Err(H264Error::Length { offset: 9, claimed: 9, available: 2 })
        );
        let data = Bytes::from_static(&[0, 0, 0, 1, 0x41, 0, 0]);
        assert_eq!(
            split_avcc(&data),
            Err(H264Error::Length { offset: 5, claimed: 4, available: 2 })
        );
        assert!(split_avcc(&Bytes::from_static(&[0xff; 8])).is_err());
    }

    /// NAL units as an encoder may produce them: no start code inside, no zero at the end.
    fn units() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let unit = prop::collection::vec(0..4_u8, 1..40).prop_map(|mut unit| {
            for at in 2..unit.len() {
                if unit[at - 2] == 0 && unit[at - 1] == 0 {
                    unit[at] = 3;
                }
            }
            unit.push(0x80);
            unit
        });
        prop::collection::vec(unit, 0..8)
    }

    proptest! {
        #[test]
        fn splitting_undoes_joining(units in units(), long in any::<bool>()) {
            let code: &[u8] = if long { &[0, 0, 0, 1] } else { &[0, 0, 1] };
            let annex_b: Vec<u8> =
                units.iter().flat_map(|unit| code.iter().chain(unit).copied()).collect();
            prop_assert_eq!(split_annex_b(&annex_b.into()), units.clone());
            let avcc: Vec<u8> = units
                .iter()
                .flat_map(|unit| (unit.len() as u32).to_be_bytes().into_iter().chain(unit.clone()))
                .collect();
            prop_assert_eq!(split_avcc(&avcc.into()).unwrap(), units);
        }

        #[test]
        fn any_bytes_are_split_without_panic(data in prop::collection::vec(0..4_u8, 0..200)) {
            let data = Bytes::from(data);
            let _ = split_avcc(&data);
            prop_assert!(split_annex_b(&data).iter().all(|unit| !unit.is_empty()));
        }
    }
}
