//! Opus in RTP (RFC 7587): one packet, one payload.

use crate::frame::{Frame, PacketisedFrame};

/// One packet, one payload; none if it is empty or larger than
/// [`MAX_PAYLOAD`](crate::frame::MAX_PAYLOAD), which takes more than 460 kbit/s at 20 ms.
pub fn packetise(frame: &Frame) -> PacketisedFrame {
    PacketisedFrame::single(frame)
}
