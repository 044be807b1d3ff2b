//! The head of a slice, and the one SEI message that tells where decoding can start.

use crate::bits::{BitReader, unescape};
use crate::h264::error::H264Error;

/// Three Exp-Golomb numbers of at most 63 bits each stand in front; all that is read of a slice.
const HEAD: usize = 24;

/// How much of an SEI NAL unit is searched. Encoders put the recovery point in front; what follows
/// (user data) may be as large as a picture.
const MAX_SEI: usize = 2048;

/// payloadType of the recovery point message (ITU-T H.264 §D.1.8).
const RECOVERY_POINT: usize = 6;

/// What kind of prediction a slice uses (ITU-T H.264 table 7-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SliceType {
    /// P or SP: from pictures before it in decoding order.
    Predicted,
    /// B: from two pictures, one of which may be shown after it.
    Bidirectional,
    /// I or SI: from itself alone.
    Intra,
}

/// The first fields of a slice header (ITU-T H.264 §7.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SliceHeader {
    pub(super) slice_type: SliceType,
    /// pic_parameter_set_id, 0 to 255.
    pub(super) pps_id: u8,
}

impl SliceHeader {
    /// Reads a whole NAL unit of type 1, 2 or 5.
    pub(super) fn parse(nal: &[u8]) -> Result<Self, H264Error> {
        let payload = unescape(nal, 1, HEAD);
        let mut reader = BitReader::new(&payload);
        let mut read = || {
            reader.unsigned()?; // first_mb_in_slice
            let slice_type = match reader.unsigned_up_to(9)? % 5 {
                1 => SliceType::Bidirectional,
                2 | 4 => SliceType::Intra,
                _ => SliceType::Predicted,
            };
            Some(Self { slice_type, pps_id: reader.unsigned_up_to(255)? as u8 })
        };
        read().ok_or(H264Error::Malformed { what: "slice header", bytes: nal.len() })
    }
}

/// Whether an SEI NAL unit says that decoding from this access unit gives right pictures at once
/// (recovery_frame_cnt 0). A broken message says nothing.
pub(super) fn is_instant_recovery_point(nal: &[u8]) -> bool {
    let payload = unescape(nal, 1, MAX_SEI);
    let mut rest = payload.as_slice();
    // Each message takes at least two bytes, so the loop ends with the data.
    while let Some((message_type, behind)) = read_extended(rest) {
        let Some((size, behind)) = read_extended(behind) else { return false };
        let Some((message, behind)) = behind.split_at_checked(size) else { return false };
        if message_type == RECOVERY_POINT {
            return BitReader::new(message).unsigned() == Some(0);
        }
        rest = behind;
    }
    false
}

/// A number written as a run of 255s and a last byte (ITU-T H.264 §7.3.2.3.1), and what follows.
fn read_extended(data: &[u8]) -> Option<(usize, &[u8])> {
    let run = data.iter().take_while(|byte| **byte == 255).count();
    let (last, rest) = data.get(run..)?.split_first()?;
    Some((run * 255 + usize::from(*last), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slice_types_and_picture_parameter_sets() {
        // first_mb 0 (1), slice_type 7 (0001000), pps 0 (1)
        let intra = SliceHeader::parse(&[0x65, 0b1000_1000, 0b1000_0000]).unwrap();
        assert_eq!(intra, SliceHeader { slice_type: SliceType::Intra, pps_id: 0 });
        // first_mb 0 (1), slice_type 1 (010), pps 2 (011)
        let bidirectional = SliceHeader::parse(&[0x01, 0b1010_0110]).unwrap();
        assert_eq!(bidirectional, SliceHeader { slice_type: SliceType::Bidirectional, pps_id: 2 });
        // first_mb 0 (1), slice_type 5 (00110), pps 0 (1)
        let predicted = SliceHeader::parse(&[0x41, 0b1001_1010]).unwrap();
        assert_eq!(predicted.slice_type, SliceType::Predicted);
        // slice_type 10 does not exist: 1 0001011 1
        assert!(SliceHeader::parse(&[0x41, 0b1000_1011, 0x80]).is_err());
        assert!(SliceHeader::parse(&[0x41]).is_err());
    }

    #[test]
    fn recovery_points() {
        // A user data message of 2 bytes, then a recovery point of count 0.
        assert!(is_instant_recovery_point(&[6, 5, 2, 9, 9, 6, 1, 0xc4, 0x80]));
        // Count 2 (011): the picture builds up over two more frames.
        assert!(!is_instant_recovery_point(&[6, 6, 1, 0b0110_0100, 0x80]));
        assert!(!is_instant_recovery_point(&[6, 5, 200, 9, 9]));
        assert!(!is_instant_recovery_point(&[6]));
        let mut long = vec![6, 5, 255, 45];
        long.extend([1; 300]);
        long.extend([6, 1, 0xc4, 0x80]);
        assert!(is_instant_recovery_point(&long));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(nal: Vec<u8>) {
            let _ = SliceHeader::parse(&nal);
            let _ = is_instant_recovery_point(&nal);
        }
    }
}
