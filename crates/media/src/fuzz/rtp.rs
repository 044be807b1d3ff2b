//! RTP payloads as a publisher cuts them, put together and cut again for viewers.

use bytes::Bytes;

use super::pieces;
use crate::frame::{Codec, Frame, MAX_PAYLOAD, NtpTime, PacketisedFrame};
use crate::h264::Depacketiser;
use crate::packetise::packetise;

/// A piece's manner: the packet ends a frame (the marker bit).
const MARKER: u8 = 1;

/// Payloads in sending order. What they add up to is cut into payloads that give the same, and
/// payloads that go on as they are stay what they are.
pub fn rtp(data: &[u8]) {
    let mut depacketiser = Depacketiser::default();
    let mut units = Vec::new();
    let mut payloads = Vec::new();
    for (manner, payload) in pieces(data) {
        units.extend(depacketiser.handle_payload(payload).unwrap_or_default());
        payloads.push(Bytes::copy_from_slice(payload));
        if manner & MARKER != 0 {
            // A frame that ends within a NAL unit is lost, as it would be in a stream.
            if depacketiser.handle_end_of_frame().is_ok() {
                check_units(&units);
            }
            check_as_cut(&payloads);
            units.clear();
            payloads.clear();
        }
    }
}

fn check_units(units: &[Bytes]) {
    // Of the other types none is a NAL unit of a picture; the normaliser lets none pass.
    let units: Vec<Bytes> =
        units.iter().filter(|unit| (1..=23).contains(&(unit[0] & 0x1f))).cloned().collect();
    let cut = packetise(&frame(Codec::H264, &units));
    let mut depacketiser = Depacketiser::default();
    let mut again = Vec::new();
    for payload in cut.payloads() {
        assert!((1..=MAX_PAYLOAD).contains(&payload.len()));
        again.extend(depacketiser.handle_payload(payload).expect("it is our own payload"));
    }
    depacketiser.handle_end_of_frame().expect("the frame is whole");
    assert_eq!(again, units);
}

fn check_as_cut(payloads: &[Bytes]) {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::Av1] {
        let cut: PacketisedFrame = packetise(&frame(codec, payloads));
        // All of them, or nothing where one does not fit.
        assert!(cut.packet_count() == 0 || cut.payloads().eq(payloads.iter().map(|p| &p[..])));
    }
}

fn frame(codec: Codec, units: &[Bytes]) -> Frame {
    Frame {
        codec,
        ticks: 0,
        captured: NtpTime(0),
        keyframe: true,
        discontinuity: false,
        units: units.to_vec(),
    }
}
