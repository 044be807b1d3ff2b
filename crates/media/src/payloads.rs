//! Payloads one behind the other while a frame is cut, and what H.264 and H.265 have in common there.

use bytes::Bytes;

use crate::frame::{Frame, MAX_ACCESS_UNIT, MAX_PAYLOAD, PacketisedFrame};

/// Start bit of a fragment's header (RFC 6184 §5.8, RFC 7798 §4.4.3).
pub(crate) const FU_START: u8 = 0x80;
/// End bit of a fragment's header.
pub(crate) const FU_END: u8 = 0x40;

/// Largest frame: an access unit with the parameter sets that the normaliser puts in front.
const MAX_FRAME: usize = MAX_ACCESS_UNIT + (1 << 20);

/// Payloads one behind the other, as [`PacketisedFrame`] keeps them.
pub(crate) struct Payloads {
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl Payloads {
    /// Room for a frame; `None` for one that is larger than any can be.
    pub(crate) fn for_frame(frame: &Frame) -> Option<Self> {
        let bytes: usize = frame.units.iter().map(Bytes::len).sum();
        let packets = bytes / MAX_PAYLOAD + 2;
        (bytes <= MAX_FRAME).then(|| Self {
            data: Vec::with_capacity(bytes + 4 * packets),
            ends: Vec::with_capacity(packets),
        })
    }

    /// Appends one payload that is put together from `parts`.
    pub(crate) fn push<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) {
        for part in parts {
            self.data.extend_from_slice(part);
        }
        self.ends.push(self.data.len() as u32);
    }

    /// Appends one payload of several NAL units, each behind its length in two bytes.
    pub(crate) fn push_aggregate(&mut self, header: &[u8], units: &[Bytes]) {
        self.data.extend_from_slice(header);
        for unit in units {
            self.data.extend_from_slice(&(unit.len() as u16).to_be_bytes());
            self.data.extend_from_slice(unit);
        }
        self.push([]);
    }

    /// What was cut, with the frame's times.
    pub(crate) fn finish(self, frame: &Frame) -> PacketisedFrame {
        PacketisedFrame::new(frame, self.data, self.ends)
    }
}

/// Cuts a NAL unit's body, which is longer than `longest`, into parts of equal size of which the last
/// may be shorter, each with its start and end bits.
pub(crate) fn fragments(body: &[u8], longest: usize) -> impl Iterator<Item = (u8, &[u8])> {
    let count = body.len().div_ceil(longest).max(1);
    let parts = body.chunks(body.len().div_ceil(count).max(1));
    let last = parts.len().saturating_sub(1);
    parts.enumerate().map(move |(index, part)| {
        let start = if index == 0 { FU_START } else { 0 };
        let end = if index == last { FU_END } else { 0 };
        (start | end, part)
    })
}
