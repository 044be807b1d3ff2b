//! Opus in RTP (RFC 7587): one packet, one payload.

use bytes::Bytes;

use crate::frame::{Frame, MAX_CUT_PAYLOAD, PacketisedFrame};
use crate::negotiated::OPUS_PAYLOAD_TYPE;
use crate::red;

/// One packet, one payload as its sender made it; none if it is empty or larger than
/// [`MAX_CUT_PAYLOAD`], which no single Opus frame is (RFC 6716 §3.4).
///
/// Redundancy that came with it is kept with its blocks named as receivers were offered them, if it is
/// whole and fits into a packet.
pub fn packetise(frame: &Frame) -> PacketisedFrame {
    let mut packet = PacketisedFrame::as_cut(frame);
    if let Some(forwarded) = &mut packet.forwarded {
        let fits = |red: &Bytes| red.len() <= MAX_CUT_PAYLOAD;
        let red = forwarded.red.take().filter(fits);
        forwarded.red = red.and_then(|red| red::renamed(&red, OPUS_PAYLOAD_TYPE).ok());
    }
    packet
}
