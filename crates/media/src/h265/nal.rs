//! NAL units and their header of two bytes (ITU-T H.265 §7.3.1.2).
//!
//! ```text
//! |F|   type    | nuh_layer_id  | TID + 1 |
//!  1      6             6            3       bits
//! ```

/// Length of a NAL unit's header.
pub(super) const HEADER: usize = 2;

/// The kinds of NAL unit that this crate tells apart (ITU-T H.265 table 7-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NalType {
    /// A slice of a picture that follows its IRAP picture in both orders (0 to 5).
    Trailing,
    /// A slice of a picture that is shown before the IRAP picture it was sent behind: RADL (6, 7)
    /// can be decoded from there, RASL (8, 9) refers to what was before.
    Leading,
    /// A slice of a BLA picture (16 to 18): a CRA picture behind a splice.
    BrokenLink,
    /// A slice of an IDR picture (19, 20).
    Idr,
    /// A slice of a CRA picture (21): it alone can be decoded, what leads it may not.
    CleanRandomAccess,
    /// Video parameter set (32).
    Vps,
    /// Sequence parameter set (33).
    Sps,
    /// Picture parameter set (34).
    Pps,
    /// End of sequence (36), which changes how order counts of what follows are read.
    EndOfSequence,
    /// Supplemental enhancement information, before or behind the slices (39, 40).
    Sei,
    /// Everything that no browser needs: delimiters (35), end of bitstream (37), filler (38), layers
    /// above the base, reserved and unspecified types. Types 48 to 50 must not be sent at all: they
    /// mean something else in RTP (RFC 7798 §4.4).
    Other,
}

impl NalType {
    /// The type in a NAL unit's header; `None` for one without a whole header.
    pub fn of(nal: &[u8]) -> Option<Self> {
        let &[first, second, ..] = nal else { return None };
        let layer = (first & 1) << 5 | second >> 3;
        // A TID of 0 minus 1 is forbidden.
        if layer != 0 || second & 0x07 == 0 {
            return Some(Self::Other);
        }
        Some(match first >> 1 & 0x3f {
            0..=5 => Self::Trailing,
            6..=9 => Self::Leading,
            16..=18 => Self::BrokenLink,
            19 | 20 => Self::Idr,
            21 => Self::CleanRandomAccess,
            32 => Self::Vps,
            33 => Self::Sps,
            34 => Self::Pps,
            36 => Self::EndOfSequence,
            39 | 40 => Self::Sei,
            _ => Self::Other,
        })
    }

    /// A slice of a picture that decoding can start from (IRAP).
    pub(super) const fn is_random_access(self) -> bool {
        match self {
            Self::BrokenLink | Self::Idr | Self::CleanRandomAccess => true,
            Self::Trailing
            | Self::Leading
            | Self::Vps
            | Self::Sps
            | Self::Pps
            | Self::EndOfSequence
            | Self::Sei
            | Self::Other => false,
        }
    }

    /// A slice of the base layer.
    pub(super) const fn is_slice(self) -> bool {
        self.is_random_access() || matches!(self, Self::Trailing | Self::Leading)
    }
}

/// Whether other pictures take their order count from one with this header: of the lowest temporal
/// layer, not leading, and used for reference there (ITU-T H.265 §8.3.1, prevTid0Pic).
pub(super) fn anchors_order(nal: &[u8]) -> bool {
    let &[first, second, ..] = nal else { return false };
    let unreferenced = matches!(first >> 1 & 0x3f, 0 | 2 | 4);
    second & 0x07 == 1 && !unreferenced && NalType::of(nal) != Some(NalType::Leading)
}

/// Whether a slice is the first of its picture (first_slice_segment_in_pic_flag).
pub(super) fn is_first_slice(nal: &[u8]) -> bool {
    nal.get(HEADER).is_some_and(|byte| byte & 0x80 != 0)
}

/// Whether an access unit may begin with this NAL unit: anything but a slice that is not the first of
/// its picture.
pub(crate) fn begins_picture(nal: &[u8]) -> bool {
    NalType::of(nal).is_some_and(|kind| !kind.is_slice() || is_first_slice(nal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_the_base_layer() {
        let of = |kind: u8| NalType::of(&[kind << 1, 1]).unwrap();
        assert_eq!(of(1), NalType::Trailing);
        assert_eq!(of(8), NalType::Leading);
        assert_eq!(of(10), NalType::Other);
        assert_eq!(of(16), NalType::BrokenLink);
        assert_eq!(of(20), NalType::Idr);
        assert_eq!(of(21), NalType::CleanRandomAccess);
        assert_eq!(of(22), NalType::Other);
        assert_eq!(of(35), NalType::Other);
        assert_eq!(of(48), NalType::Other);
        assert_eq!(NalType::of(&[0x26]), None);
    }

    #[test]
    fn layers_above_the_base_and_forbidden_headers_are_not_needed() {
        assert_eq!(NalType::of(&[0x26, 0x09]), Some(NalType::Other));
        assert_eq!(NalType::of(&[0x27, 0x01]), Some(NalType::Other));
        assert_eq!(NalType::of(&[0x26, 0x00]), Some(NalType::Other));
    }

    #[test]
    fn what_order_counts_hang_on() {
        assert!(anchors_order(&[0x02, 1]), "TRAIL_R");
        assert!(!anchors_order(&[0x00, 1]), "TRAIL_N");
        assert!(!anchors_order(&[0x02, 2]), "the second temporal layer");
        assert!(!anchors_order(&[0x10, 1]), "RASL_N");
        assert!(anchors_order(&[0x2a, 1]), "CRA");
    }
}
