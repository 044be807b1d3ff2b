//! Cutting a frame into RTP payloads (RFC 6184, packetization-mode 1).
//!
//! ```text
//! single NAL unit  | NAL header | ...                                                | §5.6
//! STAP-A           | F NRI 24 | size (2) | NAL unit | size (2) | NAL unit | ...      | §5.7.1
//! FU-A             | F NRI 28 | S E 0 type | part of the NAL unit behind its header  | §5.8
//! ```

use bytes::Bytes;

use crate::frame::{Frame, MAX_PAYLOAD, PacketisedFrame};
use crate::h264::nal::NalType;
use crate::payloads::{Payloads, fragments};

/// NAL unit type of an aggregation packet.
pub(super) const STAP_A: u8 = 24;
/// NAL unit type of a fragment.
pub(super) const FU_A: u8 = 28;
/// Most bytes of a NAL unit in a fragment: two go to the fragment's headers.
const MAX_FRAGMENT: usize = MAX_PAYLOAD - 2;

/// Cuts a frame into RTP payloads (single NAL unit, STAP-A, FU-A) of at most [`MAX_PAYLOAD`] bytes.
/// The fragments of one NAL unit are of equal size, the last one may be shorter.
///
/// Neighbouring parameter sets and SEI share a payload. Empty NAL units are left out; a frame
/// without any has no payloads, nor has one that is larger than any access unit can be.
pub fn packetise(frame: &Frame) -> PacketisedFrame {
    let Some(mut payloads) = Payloads::for_frame(frame) else {
        return PacketisedFrame::new(frame, Vec::new(), Vec::new());
    };
    let mut rest = frame.units.as_slice();
    while let Some((unit, behind)) = rest.split_first() {
        let together = aggregate_length(rest);
        if together > 1 {
            let units = &rest[..together];
            payloads.push_aggregate(&[stap_a_header(units)], units);
            rest = &rest[together..];
            continue;
        }
        if unit.len() > MAX_PAYLOAD {
            push_fragments(&mut payloads, unit);
        } else if !unit.is_empty() {
            payloads.push([unit.as_ref()]);
        }
        rest = behind;
    }
    payloads.finish(frame)
}

/// How many of the first units can share one STAP-A: parameter sets and SEI, as far as they fit.
fn aggregate_length(units: &[Bytes]) -> usize {
    let mut size = 1;
    units
        .iter()
        .take_while(|unit| {
            size += 2 + unit.len();
            let small =
                matches!(NalType::of(unit), Some(NalType::Sps | NalType::Pps | NalType::Sei));
            small && size <= MAX_PAYLOAD
        })
        .count()
}

/// RFC 6184 §5.7.1: F is the OR, NRI the maximum of the units'.
fn stap_a_header(units: &[Bytes]) -> u8 {
    let forbidden = units.iter().fold(0, |bits, unit| bits | unit[0] & 0x80);
    let importance = units.iter().map(|unit| unit[0] & 0x60).max().unwrap_or(0);
    forbidden | importance | STAP_A
}

fn push_fragments(payloads: &mut Payloads, unit: &[u8]) {
    let Some((header, body)) = unit.split_first() else { return };
    let (indicator, nal_type) = (header & 0xe0 | FU_A, header & 0x1f);
    for (ends, fragment) in fragments(body, MAX_FRAGMENT) {
        payloads.push([&[indicator, ends | nal_type][..], fragment]);
    }
}
