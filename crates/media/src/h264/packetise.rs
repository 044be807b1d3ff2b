//! Cutting a frame into RTP payloads (RFC 6184, packetization-mode 1).
//!
//! ```text
//! single NAL unit  | NAL header | ...                                                | §5.6
//! STAP-A           | F NRI 24 | size (2) | NAL unit | size (2) | NAL unit | ...      | §5.7.1
//! FU-A             | F NRI 28 | S E 0 type | part of the NAL unit behind its header  | §5.8
//! ```

use bytes::Bytes;

use crate::frame::{Frame, MAX_PAYLOAD, PacketisedFrame};
use crate::h264::nal::{MAX_ACCESS_UNIT, NalType};

/// NAL unit type of an aggregation packet.
pub(super) const STAP_A: u8 = 24;
/// NAL unit type of a fragment.
pub(super) const FU_A: u8 = 28;
/// Start bit of a fragment's header.
pub(super) const FU_START: u8 = 0x80;
/// End bit of a fragment's header.
pub(super) const FU_END: u8 = 0x40;

/// Most bytes of a NAL unit in a fragment: two go to the fragment's headers.
const MAX_FRAGMENT: usize = MAX_PAYLOAD - 2;

/// Largest frame: an access unit with the parameter sets that the normaliser puts in front.
const MAX_FRAME: usize = MAX_ACCESS_UNIT + (1 << 20);

/// Cuts a frame into RTP payloads (single NAL unit, STAP-A, FU-A) of at most [`MAX_PAYLOAD`] bytes.
/// The fragments of one NAL unit are of equal size, the last one may be shorter.
///
/// Neighbouring parameter sets and SEI share a payload. Empty NAL units are left out; a frame
/// without any has no payloads, nor has one that is larger than any access unit can be.
pub fn packetise(frame: &Frame) -> PacketisedFrame {
    let bytes: usize = frame.units.iter().map(Bytes::len).sum();
    if bytes > MAX_FRAME {
        return PacketisedFrame::new(frame, Vec::new(), Vec::new());
    }
    let mut payloads = Payloads::with_capacity(bytes);
    let mut rest = frame.units.as_slice();
    while let Some((unit, behind)) = rest.split_first() {
        let together = aggregate_length(rest);
        if together > 1 {
            payloads.push_aggregate(&rest[..together]);
            rest = &rest[together..];
            continue;
        }
        if unit.len() > MAX_PAYLOAD {
            payloads.push_fragments(unit);
        } else if !unit.is_empty() {
            payloads.push([unit.as_ref()]);
        }
        rest = behind;
    }
    PacketisedFrame::new(frame, payloads.data, payloads.ends)
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

/// Payloads one behind the other, as [`PacketisedFrame`] keeps them.
struct Payloads {
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl Payloads {
    fn with_capacity(bytes: usize) -> Self {
        let packets = bytes / MAX_FRAGMENT + 2;
        Self { data: Vec::with_capacity(bytes + 2 * packets), ends: Vec::with_capacity(packets) }
    }

    /// Appends one payload that is put together from `parts`.
    fn push<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) {
        for part in parts {
            self.data.extend_from_slice(part);
        }
        self.ends.push(self.data.len() as u32);
    }

    fn push_aggregate(&mut self, units: &[Bytes]) {
        // RFC 6184 §5.7.1: F is the OR, NRI the maximum of the units'.
        let forbidden = units.iter().fold(0, |bits, unit| bits | unit[0] & 0x80);
        let importance = units.iter().map(|unit| unit[0] & 0x60).max().unwrap_or(0);
        self.data.push(forbidden | importance | STAP_A);
        for unit in units {
            self.data.extend_from_slice(&(unit.len() as u16).to_be_bytes());
            self.data.extend_from_slice(unit);
        }
        self.push([]);
    }

    fn push_fragments(&mut self, unit: &[u8]) {
        let Some((header, body)) = unit.split_first() else { return };
        let (indicator, nal_type) = (header & 0xe0 | FU_A, header & 0x1f);
        let count = body.len().div_ceil(MAX_FRAGMENT);
        let fragments = body.chunks(body.len().div_ceil(count));
        let last = fragments.len() - 1;
        for (index, fragment) in fragments.enumerate() {
            let start = if index == 0 { FU_START } else { 0 };
            let end = if index == last { FU_END } else { 0 };
            self.push([&[indicator, start | end | nal_type][..], fragment]);
        }
    }
}
