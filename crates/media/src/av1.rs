//! AV1 in RTP (the Alliance for Open Media's payload format, v1.0): where a temporal unit begins,
//! whether decoding can start there, how large its pictures are.
//!
//! Payloads are forwarded as the publisher cut them; nothing here changes or decodes one. A temporal
//! unit is what this crate calls a frame.

use crate::bits::BitReader;
use crate::frame::{PayloadHead, PictureSize};

/// Z of the aggregation header: the first element goes on from the packet before (§4.4).
const CONTINUES: u8 = 0x80;
/// N of the aggregation header: the first packet of a coded video sequence (§4.4).
const NEW_SEQUENCE: u8 = 0x08;
/// OBU_SEQUENCE_HEADER (AV1 bitstream specification §6.2.2).
const SEQUENCE_HEADER: u8 = 1;
/// OBU_TEMPORAL_DELIMITER, which senders leave out (§5), and some do not.
const TEMPORAL_DELIMITER: u8 = 2;

/// Reads a payload's aggregation header and, where a sequence begins, its sequence header.
///
/// ```text
/// |Z|Y| W |N|-|-|-| [length] element [length] element ...
/// ```
/// `None` when it is cut short, or when a sequence begins without a sequence header.
pub(crate) fn read_head(payload: &[u8]) -> Option<PayloadHead> {
    let (&header, rest) = payload.split_first()?;
    let begins = header & CONTINUES == 0;
    if !begins || header & NEW_SEQUENCE == 0 {
        return (!rest.is_empty()).then_some(PayloadHead {
            begins,
            keyframe: false,
            size: None,
            picture_id: None,
        });
    }
    let mut elements = Elements { rest, count: header >> 4 & 0x03, read: 0 };
    let mut obu = elements.next()?;
    if obu_type(obu) == Some(TEMPORAL_DELIMITER) {
        obu = elements.next()?;
    }
    if obu_type(obu)? != SEQUENCE_HEADER {
        return None;
    }
    let size = sequence_size(obu_payload(obu)?)?;
    Some(PayloadHead { begins, keyframe: true, size: Some(size), picture_id: None })
}

/// The elements of a payload: with a count W of 1 to 3 the last one has no length in front.
struct Elements<'a> {
    rest: &'a [u8],
    count: u8,
    read: u8,
}

impl<'a> Elements<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.read += 1;
        if self.read == self.count {
            return Some(std::mem::take(&mut self.rest));
        }
        let length = usize::try_from(take_leb128(&mut self.rest)?).ok()?;
        let (element, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(element)
    }
}

/// A number of seven bits a byte, the lowest first, at most 32 bits (AV1 bitstream specification
/// §4.10.5).
fn take_leb128(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u64;
    for index in 0..8 {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}

fn obu_type(obu: &[u8]) -> Option<u8> {
    Some(obu.first()? >> 3 & 0x0f)
}

/// What stands behind the OBU header, its extension and its size.
fn obu_payload(obu: &[u8]) -> Option<&[u8]> {
    let (&header, mut rest) = obu.split_first()?;
    if header & 0x04 != 0 {
        rest = rest.get(1..)?;
    }
    if header & 0x02 != 0 {
        take_leb128(&mut rest)?;
    }
    Some(rest)
}

/// The largest size of a sequence header's pictures (AV1 bitstream specification §5.5.1).
fn sequence_size(payload: &[u8]) -> Option<PictureSize> {
    let mut reader = BitReader::new(payload);
    reader.skip(4)?; // seq_profile, still_picture
    if reader.flag()? {
        reader.skip(5)?; // reduced_still_picture_header: one level
    } else {
        skip_operating_points(&mut reader)?;
    }
    let (width_bits, height_bits) = (reader.bits(4)? + 1, reader.bits(4)? + 1);
    Some(PictureSize { width: reader.bits(width_bits)? + 1, height: reader.bits(height_bits)? + 1 })
}

fn skip_operating_points(reader: &mut BitReader<'_>) -> Option<()> {
    let mut delay_bits = None;
    if reader.flag()? {
        reader.skip(64)?; // num_units_in_display_tick, time_scale
        if reader.flag()? {
            reader.unsigned()?; // num_ticks_per_picture_minus_1: uvlc is written as ue(v) is
        }
        if reader.flag()? {
            delay_bits = Some(reader.bits(5)? as usize + 1);
            reader.skip(42)?; // the rest of decoder_model_info
        }
    }
    let has_display_delay = reader.flag()?;
    for _ in 0..=reader.bits(5)? {
        reader.skip(12)?; // operating_point_idc
        if reader.bits(5)? > 7 {
            reader.skip(1)?; // seq_tier
        }
        if let Some(bits) = delay_bits
            && reader.flag()?
        {
            reader.skip(2 * bits + 1)?; // both delays, low_delay_mode_flag
        }
        if has_display_delay && reader.flag()? {
            reader.skip(4)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A sequence header of libaom: 640x360.
    const SEQUENCE: [u8; 12] = [0x08, 0, 0, 0, 0x0c, 0xc4, 0xff, 0x67, 0x36, 0xbe, 0x40, 0x10];

    #[test]
    fn a_sequence_header_tells_the_size() {
        let size = PictureSize { width: 640, height: 360 };
        // W = 2: the sequence header behind its length, a frame without one.
        let payload = [&[0x28, 12][..], &SEQUENCE, &[0x30, 1, 2]].concat();
        let expected =
            PayloadHead { begins: true, keyframe: true, size: Some(size), picture_id: None };
        assert_eq!(read_head(&payload), Some(expected));
        // W = 0: all behind their lengths, a temporal delimiter in front.
        let payload = [&[0x08, 1, 0x10, 12][..], &SEQUENCE, &[2, 0x30, 1]].concat();
        assert_eq!(read_head(&payload), Some(expected));
        // W = 1: it alone.
        let payload = [&[0x18][..], &SEQUENCE].concat();
        assert_eq!(read_head(&payload), Some(expected));
        assert_eq!(read_head(&payload[..7]), None, "cut short");
    }

    #[test]
    fn what_begins_and_what_goes_on() {
        let head = |payload: &[u8]| read_head(payload).unwrap();
        assert!(head(&[0x10, 0x30, 1]).begins && !head(&[0x10, 0x30, 1]).keyframe);
        assert!(!head(&[0x90, 7]).begins);
        assert_eq!(read_head(&[0x18, 0x30, 1]), None, "a sequence without its header");
        assert_eq!(read_head(&[0x10]), None, "nothing behind the header");
        assert_eq!(read_head(&[0x28, 0x80, 0x80]), None, "a length without end");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(payload in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = read_head(&payload);
        }
    }
}
