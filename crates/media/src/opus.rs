//! Opus in RTP (RFC 7587): one packet, one payload.

use crate::frame::{Frame, PacketisedFrame};

/// One packet, one payload as its sender made it; none if it is empty or larger than
/// [`MAX_CUT_PAYLOAD`](crate::frame::MAX_CUT_PAYLOAD), which no single Opus frame is (RFC 6716 §3.4).
pub fn packetise(frame: &Frame) -> PacketisedFrame {
    PacketisedFrame::as_cut(frame)
}
