//! VP8 in RTP (RFC 7741): where a picture begins, whether decoding can start there, how large it is.
//!
//! Payloads are forwarded as the publisher cut them; nothing here decodes one.

use crate::frame::{PayloadHead, PictureSize};
use crate::picture_id::PictureId;

/// S of the payload descriptor: a partition starts here (RFC 7741 §4.2).
const START_OF_PARTITION: u8 = 0x10;
/// PID of the payload descriptor: which partition. A picture begins with partition 0.
const PARTITION: u8 = 0x07;
/// X of the payload descriptor: a byte of flags for optional fields follows.
const EXTENDED: u8 = 0x80;
/// What stands before the size of a keyframe: start code (RFC 6386 §9.1).
const START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];

/// Reads a payload's descriptor and, where a picture begins, its first bytes.
///
/// ```text
/// |X|R|N|S|R| PID | [I|L|T|K|RSV] [M| PictureID ] [TL0PICIDX] [TID|Y|KEYIDX]   RFC 7741 §4.2
/// |  size0  |H| VER |P|  size1, size2  | 9d 01 2a | width | height |           RFC 6386 §9.1
/// ```
/// `None` when it is cut short, or when a keyframe has no start code.
pub(crate) fn read_head(payload: &[u8]) -> Option<PayloadHead> {
    let (&first, rest) = payload.split_first()?;
    let (picture_id, body) = if first & EXTENDED == 0 { (None, rest) } else { extension(payload)? };
    let (&tag, _) = body.split_first()?;
    let begins = first & START_OF_PARTITION != 0 && first & PARTITION == 0;
    if !begins || tag & 1 != 0 {
        return Some(PayloadHead { begins, keyframe: false, size: None, picture_id });
    }
    let (code, sides) = body.get(3..10)?.split_first_chunk::<3>()?;
    let &[width_low, width_high, height_low, height_high] = sides else { return None };
    if *code != START_CODE {
        return None;
    }
    // The two upper bits scale what is shown, not what is coded.
    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    let size =
        PictureSize { width: side(width_low, width_high), height: side(height_low, height_high) };
    Some(PayloadHead { begins, keyframe: true, size: Some(size), picture_id })
}

/// The picture id among the optional fields, and what follows them.
fn extension(payload: &[u8]) -> Option<(Option<PictureId>, &[u8])> {
    let &flags = payload.get(1)?;
    let mut rest = &payload[2..];
    let mut picture_id = None;
    if flags & 0x80 != 0 {
        let id = PictureId::read(payload, 2)?;
        rest = rest.get(id.bytes()..)?;
        picture_id = Some(id);
    }
    if flags & 0x40 != 0 {
        rest = rest.get(1..)?; // TL0PICIDX
    }
    if flags & 0x30 != 0 {
        rest = rest.get(1..)?; // TID, Y, KEYIDX
    }
    Some((picture_id, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_keyframe_tells_its_size() {
        // 15 bits of picture id, TL0PICIDX, TID; 640x360.
        let payload =
            [0x90, 0xf0, 0x81, 0x23, 7, 0x20, 0x10, 0, 0, 0x9d, 1, 0x2a, 0x80, 2, 0x68, 0x41];
        let head = read_head(&payload).unwrap();
        assert!(head.begins && head.keyframe);
        assert_eq!(head.size, Some(PictureSize { width: 640, height: 360 }));
        assert_eq!(head.picture_id, PictureId::read(&payload, 2));
        assert_eq!(read_head(&payload[..12]), None, "cut short");
    }

    #[test]
    fn what_begins_and_what_goes_on() {
        let begins = |payload: &[u8]| read_head(payload).unwrap().begins;
        assert!(begins(&[0x10, 0x31]));
        assert!(!begins(&[0x00, 0x31]), "a partition goes on");
        assert!(!begins(&[0x11, 0x31]), "the second partition begins");
        assert!(!read_head(&[0x10, 0x31]).unwrap().keyframe);
        assert_eq!(read_head(&[0x10, 0x31]).unwrap().picture_id, None);
        assert_eq!(read_head(&[0x90, 0x80]), None, "no picture id where one is said to be");
        assert_eq!(read_head(&[0x10]), None, "nothing behind the descriptor");
        assert_eq!(read_head(&[0x10, 0x30, 0, 0, 1, 2, 3, 0, 0, 0, 0]), None, "no start code");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(payload in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = read_head(&payload);
        }
    }
}
