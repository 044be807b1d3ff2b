//! H.265 (ITU-T H.265, RFC 7798): cutting access units into RTP payloads.

use crate::frame::{Frame, PacketisedFrame};

/// Cuts an access unit into RTP payloads.
pub fn packetise(frame: &Frame) -> PacketisedFrame {
    PacketisedFrame::as_cut(frame)
}
