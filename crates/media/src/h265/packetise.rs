//! Cutting a frame into RTP payloads (RFC 7798, one stream, no DONL).
//!
//! ```text
//! single NAL unit  | NAL header (2) | ...                                                  | §4.4.1
//! AP               | header, type 48 (2) | size (2) | NAL unit | size (2) | NAL unit | ... | §4.4.2
//! FU               | header, type 49 (2) | S E type | part of the unit behind its header   | §4.4.3
//! ```

use bytes::Bytes;

use crate::frame::{Frame, MAX_PAYLOAD, PacketisedFrame};
use crate::h265::nal::{HEADER, NalType};
use crate::payloads::{Payloads, fragments};

/// NAL unit type of an aggregation packet.
pub(super) const AP: u8 = 48;
/// NAL unit type of a fragmentation unit.
pub(super) const FU: u8 = 49;
/// F and the upper bit of the layer: what is not type in the first byte of a header.
pub(super) const NOT_TYPE: u8 = 0x81;

/// Most bytes of a NAL unit in a fragment: three go to the fragment's headers.
const MAX_FRAGMENT: usize = MAX_PAYLOAD - HEADER - 1;

/// Cuts a frame into RTP payloads (single NAL unit, AP, FU) of at most [`MAX_PAYLOAD`] bytes. The
/// fragments of one NAL unit are of equal size, the last one may be shorter.
///
/// Neighbouring parameter sets and SEI share a payload. NAL units without a whole header are left
/// out; a frame without any other has no payloads, nor has one that is larger than any access unit can be.
pub fn packetise(frame: &Frame) -> PacketisedFrame {
    let Some(mut payloads) = Payloads::for_frame(frame) else {
        return PacketisedFrame::new(frame, Vec::new(), Vec::new());
    };
    let mut rest = frame.units.as_slice();
    while let Some((unit, behind)) = rest.split_first() {
        let together = aggregate_length(rest);
        if together > 1 {
            let units = &rest[..together];
            payloads.push_aggregate(&aggregate_header(units), units);
            rest = &rest[together..];
            continue;
        }
        if unit.len() > MAX_PAYLOAD {
            push_fragments(&mut payloads, unit);
        } else if unit.len() >= HEADER {
            payloads.push([unit.as_ref()]);
        }
        rest = behind;
    }
    payloads.finish(frame)
}

/// How many of the first units can share one AP: parameter sets and SEI, as far as they fit.
fn aggregate_length(units: &[Bytes]) -> usize {
    let mut size = HEADER;
    units
        .iter()
        .take_while(|unit| {
            size += 2 + unit.len();
            let small = matches!(
                NalType::of(unit),
                Some(NalType::Vps | NalType::Sps | NalType::Pps | NalType::Sei)
            );
            small && size <= MAX_PAYLOAD
        })
        .count()
}

/// F is the OR of the units', TID the lowest of theirs; the layer is the base (RFC 7798 §4.4.2).
fn aggregate_header(units: &[Bytes]) -> [u8; HEADER] {
    let forbidden = units.iter().fold(0, |bits, unit| bits | unit[0] & 0x80);
    let temporal = units.iter().map(|unit| unit[1] & 0x07).min().unwrap_or(1);
    [forbidden | AP << 1, temporal]
}

fn push_fragments(payloads: &mut Payloads, unit: &[u8]) {
    let Some((&[first, second], body)) = unit.split_first_chunk::<HEADER>() else { return };
    let (indicator, nal_type) = (first & NOT_TYPE | FU << 1, first >> 1 & 0x3f);
    for (ends, fragment) in fragments(body, MAX_FRAGMENT) {
        payloads.push([&[indicator, second, ends | nal_type][..], fragment]);
    }
}
