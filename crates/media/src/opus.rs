//! Opus in RTP (RFC 7587): one packet, one payload.

use crate::frame::{Frame, PacketisedFrame};

/// One packet, one payload.
pub fn packetise(_frame: &Frame) -> PacketisedFrame {
    todo!()
}
