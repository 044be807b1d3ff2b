//! Cutting a frame of any codec into RTP payloads, once for all viewers.

use crate::frame::{Codec, Frame, PacketisedFrame};
use crate::{g711, h264, h265, opus};

/// Cuts a frame into RTP payloads of at most [`MAX_PAYLOAD`](crate::frame::MAX_PAYLOAD) bytes, as
/// its codec's payload format has it. A frame with nothing to send has no payloads.
pub fn packetise(frame: &Frame) -> PacketisedFrame {
    match frame.codec {
        Codec::H264 => h264::packetise(frame),
        Codec::H265 => h265::packetise(frame),
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => PacketisedFrame::as_cut(frame),
        Codec::Opus => opus::packetise(frame),
        Codec::Pcmu | Codec::Pcma => g711::packetise(frame),
    }
}
