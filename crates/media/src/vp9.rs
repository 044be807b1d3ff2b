//! VP9 in RTP (RFC 9628): where a picture begins, whether decoding can start there, how large it is.
//!
//! Payloads are forwarded as the publisher cut them; nothing here decodes one.

use crate::bits::BitReader;
use crate::frame::{PayloadHead, PictureSize};
use crate::picture_id::PictureId;

/// frame_sync_code of a keyframe (VP9 bitstream specification §6.2).
const SYNC_CODE: u32 = 0x49_8342;
/// CS_RGB: a colour space with its own layout of what follows.
const RGB: u32 = 7;
/// Reference pictures of one picture, at most (RFC 9628 §4.2: N ends the list).
const MAX_REFERENCES: usize = 3;

/// The payload descriptor, as far as it matters here.
///
/// ```text
/// |I|P|L|F|B|E|V|Z| [M| PictureID ] [ TID |U| SID |D] [TL0PICIDX] [P_DIFF|N]... [scalability]
/// ```
struct Descriptor {
    /// P: not decodable alone.
    predicted: bool,
    /// B: a frame of one spatial layer begins.
    begins: bool,
    /// SID: which spatial layer, 0 is the lowest.
    layer: u8,
    /// Size of the highest layer, where the scalability structure tells it.
    size: Option<PictureSize>,
    /// I: which picture it is of.
    picture_id: Option<PictureId>,
}

/// Reads a payload's descriptor and, where a keyframe begins, its first bytes. `None` when it is cut
/// short or breaks the format.
pub(crate) fn read_head(payload: &[u8]) -> Option<PayloadHead> {
    let mut rest = payload;
    let descriptor = Descriptor::read(&mut rest)?;
    let begins = descriptor.begins && descriptor.layer == 0;
    let picture_id = descriptor.picture_id;
    let head = PayloadHead { begins, keyframe: false, size: None, picture_id };
    if !begins || descriptor.predicted {
        return (!rest.is_empty()).then_some(head);
    }
    // P is clear for an intra-only picture too, which needs what was before it.
    let Some(coded) = keyframe_size(rest)? else {
        return Some(head);
    };
    Some(PayloadHead { keyframe: true, size: Some(descriptor.size.unwrap_or(coded)), ..head })
}

impl Descriptor {
    fn read(rest: &mut &[u8]) -> Option<Self> {
        let flags = *rest.first()?;
        let picture_id = if flags & 0x80 == 0 { None } else { Some(PictureId::read(rest, 1)?) };
        *rest = &rest[1 + picture_id.map_or(0, PictureId::bytes)..];
        let (predicted, flexible) = (flags & 0x40 != 0, flags & 0x10 != 0);
        let mut layer = 0;
        if flags & 0x20 != 0 {
            layer = take(rest)? >> 1 & 0x07;
            if !flexible {
                take(rest)?; // TL0PICIDX
            }
        }
        if flexible && predicted {
            skip_references(rest)?;
        }
        let size = if flags & 0x02 != 0 { scalability(rest)? } else { None };
        Some(Self { predicted, begins: flags & 0x08 != 0, layer, size, picture_id })
    }
}

fn skip_references(rest: &mut &[u8]) -> Option<()> {
    for _ in 0..MAX_REFERENCES {
        if take(rest)? & 1 == 0 {
            return Some(());
        }
    }
    None
}

/// The scalability structure (RFC 9628 §4.2.1); answers the size of the highest layer.
///
/// ```text
/// | N_S |Y|G|0 0 0| [width, height]... [N_G] [ TID |U| R |0 0| [P_DIFF]... ]...
/// ```
fn scalability(rest: &mut &[u8]) -> Option<Option<PictureSize>> {
    let head = take(rest)?;
    let mut size = None;
    if head & 0x10 != 0 {
        for _ in 0..=head >> 5 {
            let mut side = || Some(u32::from(u16::from_be_bytes([take(rest)?, take(rest)?])));
            size = Some(PictureSize { width: side()?, height: side()? });
        }
    }
    if head & 0x08 != 0 {
        for _ in 0..take(rest)? {
            for _ in 0..take(rest)? >> 2 & 0x03 {
                take(rest)?; // P_DIFF
            }
        }
    }
    Some(size)
}

/// Reads an uncompressed header (VP9 bitstream specification §6.2) up to the size. The outer `None`
/// means broken, the inner one that it is no keyframe.
fn keyframe_size(frame: &[u8]) -> Option<Option<PictureSize>> {
    let mut reader = BitReader::new(frame);
    if reader.bits(2)? != 2 {
        return None; // frame_marker
    }
    let profile = reader.bits(1)? | reader.bits(1)? << 1;
    if profile == 3 && reader.flag()? {
        return None; // reserved_zero
    }
    if reader.flag()? || reader.flag()? {
        return Some(None); // show_existing_frame, or frame_type other than KEY_FRAME
    }
    reader.skip(2)?; // show_frame, error_resilient_mode
    if reader.bits(24)? != SYNC_CODE {
        return None;
    }
    skip_colour(&mut reader, profile)?;
    let size = PictureSize { width: reader.bits(16)? + 1, height: reader.bits(16)? + 1 };
    Some(Some(size))
}

/// color_config (VP9 bitstream specification §6.2.2).
fn skip_colour(reader: &mut BitReader<'_>, profile: u32) -> Option<()> {
    if profile >= 2 {
        reader.skip(1)?; // ten_or_twelve_bit
    }
    let subsampled = matches!(profile, 1 | 3);
    if reader.bits(3)? == RGB {
        return reader.skip(usize::from(subsampled));
    }
    // color_range; subsampling in both directions and a reserved bit.
    reader.skip(if subsampled { 4 } else { 1 })
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (&first, behind) = rest.split_first()?;
    *rest = behind;
    Some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An uncompressed header: profile 0, keyframe, 640x360.
    const KEYFRAME: [u8; 9] = [0x82, 0x49, 0x83, 0x42, 0x00, 0x27, 0xf0, 0x16, 0x70];

    #[test]
    fn a_keyframe_tells_its_size() {
        // I, L, B: a picture id of 15 bits, layer 0, TL0PICIDX.
        let payload = [&[0xa8, 0x81, 0x23, 0, 9][..], &KEYFRAME].concat();
        let head = read_head(&payload).unwrap();
        assert!(head.begins && head.keyframe);
        assert_eq!(head.size, Some(PictureSize { width: 640, height: 360 }));
        assert_eq!(head.picture_id, PictureId::read(&payload, 1));
    }

    #[test]
    fn the_scalability_structure_tells_the_size_of_the_highest_layer() {
        // B, V: two layers with sizes, a group of one picture with one reference.
        let structure = [0x38, 1, 64, 0, 180, 2, 128, 1, 104, 1, 0x04, 1];
        let payload = [&[0x0a][..], &structure, &KEYFRAME].concat();
        let size = read_head(&payload).unwrap().size;
        assert_eq!(size, Some(PictureSize { width: 640, height: 360 }));
        assert_eq!(read_head(&payload[..12]), None, "cut short");
    }

    #[test]
    fn what_begins_and_what_goes_on() {
        let head = |payload: &[u8]| read_head(payload).unwrap();
        assert!(head(&[0x48, 0x86]).begins && !head(&[0x48, 0x86]).keyframe);
        assert!(!head(&[0x40, 0x86]).begins);
        assert_eq!(head(&[0x40, 0x86]).picture_id, None);
        assert_eq!(read_head(&[0xc0]), None, "no picture id where one is said to be");
        assert!(!head(&[0x68, 0x02, 0, 0x86]).begins, "the second layer of the same picture");
        assert!(head(&[0x58, 0x03, 0x05, 0x02, 0x86]).begins, "three references");
        assert_eq!(read_head(&[0x58, 0x03, 0x05, 0x03, 0x86]), None, "a fourth one");
        assert!(!head(&[0x08, 0x86, 0]).keyframe, "intra-only");
        assert_eq!(read_head(&[0x08, 0x82, 0, 0, 0, 0, 0, 0, 0, 0]), None, "no sync code");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = read_head(&payload);
        }
    }
}
