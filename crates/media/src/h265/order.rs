//! Whether pictures are shown in the order in which they are sent, by their order counts.
//!
//! H.265 encoders without reordering use B slices all the same, so that slice types tell nothing.

use crate::h265::nal::{NalType, anchors_order};

/// Follows the pictures of one sequence.
#[derive(Debug, Default)]
pub(super) struct PictureOrder {
    /// Order count of prevTid0Pic (ITU-T H.265 §8.3.1); `None` before the first IRAP picture.
    anchor: Option<i64>,
    /// The highest order count since the newest IRAP picture.
    highest: i64,
}

impl PictureOrder {
    /// The next picture by its first slice, with the `bits` lower bits of its order count. True when it
    /// is shown before one that came earlier.
    pub(super) fn is_reordered(&mut self, nal: &[u8], lower: u32, bits: u32) -> bool {
        let Some(nal_type) = NalType::of(nal) else { return false };
        let (lower, cycle) = (i64::from(lower), 1_i64 << bits);
        let count = match (nal_type, self.anchor) {
            (NalType::Idr | NalType::BrokenLink, _) => lower,
            (NalType::CleanRandomAccess, None) => lower,
            (_, Some(anchor)) => nearest(anchor, lower, cycle),
            // Nothing to compare it with.
            (_, None) => return nal_type == NalType::Leading,
        };
        if nal_type.is_random_access() {
            self.highest = count;
        }
        if anchors_order(nal) {
            self.anchor = Some(count);
        }
        let behind = count < self.highest;
        self.highest = self.highest.max(count);
        behind || nal_type == NalType::Leading
    }
}

/// The order count with these lower bits that lies nearest to `anchor` (ITU-T H.265 §8.3.1).
fn nearest(anchor: i64, lower: i64, cycle: i64) -> i64 {
    let (upper, anchor_lower) = (anchor - anchor.rem_euclid(cycle), anchor.rem_euclid(cycle));
    if lower < anchor_lower && anchor_lower - lower >= cycle / 2 {
        upper + cycle + lower
    } else if lower > anchor_lower && lower - anchor_lower > cycle / 2 {
        upper - cycle + lower
    } else {
        upper + lower
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDR: [u8; 2] = [0x26, 1];
    const CRA: [u8; 2] = [0x2a, 1];
    const RASL: [u8; 2] = [0x12, 1];
    const TRAIL_R: [u8; 2] = [0x02, 1];
    const TRAIL_N: [u8; 2] = [0x00, 1];

    /// Feeds pictures with order counts of four bits; which of them are out of order.
    fn reordered(pictures: &[([u8; 2], u32)]) -> Vec<bool> {
        let mut order = PictureOrder::default();
        pictures.iter().map(|(nal, lower)| order.is_reordered(nal, *lower, 4)).collect()
    }

    #[test]
    fn counts_that_rise_are_in_order_over_their_wrap() {
        let mut pictures = vec![(IDR, 0)];
        pictures.extend((1..70).map(|count| (TRAIL_R, count % 16)));
        assert!(!reordered(&pictures).contains(&true));
    }

    #[test]
    fn a_pyramid_is_out_of_order() {
        let pictures = [(IDR, 0), (TRAIL_R, 3), (TRAIL_N, 1), (TRAIL_N, 2), (TRAIL_R, 6)];
        assert_eq!(reordered(&pictures), [false, false, true, true, false]);
        // Across the wrap.
        let pictures = [(IDR, 0), (TRAIL_R, 7), (TRAIL_R, 14), (TRAIL_R, 1), (TRAIL_N, 15)];
        assert_eq!(reordered(&pictures), [false, false, false, false, true]);
    }

    #[test]
    fn an_open_group_starts_at_its_cra_and_what_leads_it_is_out_of_order() {
        let pictures = [(CRA, 9), (RASL, 8), (TRAIL_R, 10), (CRA, 12), (TRAIL_R, 13)];
        assert_eq!(reordered(&pictures), [false, true, false, false, false]);
        let pictures = [(IDR, 0), (TRAIL_R, 1), (IDR, 0), (TRAIL_R, 1)];
        assert_eq!(reordered(&pictures), [false; 4]);
    }

    #[test]
    fn before_the_first_irap_nothing_is_compared() {
        assert_eq!(reordered(&[(TRAIL_R, 5), (TRAIL_R, 3), (IDR, 0)]), [false; 3]);
    }
}
