//! RTP as a publisher sends it: put together to frames, and cut again for viewers.

use bytes::Bytes;

use super::pieces;
use crate::depacketise::{Assembled, Depacketiser, Packet};
use crate::frame::{Codec, Frame, MAX_CUT_PAYLOAD, MAX_PAYLOAD, NtpTime, PacketisedFrame};
use crate::packetise::packetise;
use crate::{g711, h264, h265, red};

/// Of a packet's manner: the marker bit; packets before it are missing; the rest is added to the
/// timestamp.
const MARKER: u8 = 1;
const GAP: u8 = 2;

/// Packets of one track, whose codec the first byte names. Frames that come out can be sent, and are
/// the same when they are put together again. Each payload is read as a redundant one of a voice, too.
pub fn rtp(data: &[u8]) {
    let Some((first, packets)) = data.split_first() else { return };
    let codecs =
        [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::Opus, Codec::Pcma];
    let codec = codecs[usize::from(*first) % codecs.len()];
    let mut depacketiser = Depacketiser::new(codec);
    let mut timestamp = u32::MAX - 100;
    for (manner, payload) in pieces(packets) {
        timestamp = timestamp.wrapping_add(u32::from(manner >> 2));
        if manner & GAP != 0 {
            depacketiser.handle_gap();
        }
        let marker = manner & MARKER != 0;
        let payload = Bytes::copy_from_slice(payload);
        check_redundant(&payload);
        let whole = depacketiser.handle_packet(Packet { timestamp, marker, payload });
        for assembled in whole.unwrap_or_default() {
            check(codec, assembled);
        }
    }
}

/// What is in a payload of RED is some of it, and the newest block ends with it.
fn check_redundant(payload: &Bytes) {
    let Ok(blocks) = red::blocks(payload) else { return };
    let len: usize = blocks.iter().map(|block| block.data.len()).sum();
    assert!(blocks.len() <= red::MAX_BLOCKS && len < payload.len());
    let newest = blocks.last().expect("there is always one");
    assert!(payload.ends_with(&newest.data) && newest.timestamp_offset == 0);
    let renamed = red::renamed(payload, 96).expect("it was read before");
    let renamed = red::blocks(&renamed).expect("it is read again");
    assert!(renamed.iter().all(|block| block.payload_type == 96));
    assert!(renamed.iter().map(|block| &block.data).eq(blocks.iter().map(|block| &block.data)));
}

fn check(codec: Codec, assembled: Assembled) {
    let Assembled { keyframe, units, .. } = assembled;
    assert!(!units.is_empty(), "a frame of nothing");
    let frame = Frame {
        forwarded: None,
        codec,
        ticks: 0,
        captured: NtpTime(0),
        keyframe,
        discontinuity: false,
        units: units.clone(),
    };
    let cut = packetise(&frame);
    match codec {
        Codec::H264 => {
            let mut depacketiser = h264::Depacketiser::default();
            assert_eq!(joined(&cut, |payload| depacketiser.handle_payload(payload)), units);
            depacketiser.handle_end_of_frame().expect("the frame is whole");
        }
        Codec::H265 => {
            let mut depacketiser = h265::Depacketiser::default();
            assert_eq!(joined(&cut, |payload| depacketiser.handle_payload(payload)), units);
            depacketiser.handle_end_of_frame().expect("the frame is whole");
        }
        // Split before it is cut, by whoever publishes it.
        Codec::Pcmu | Codec::Pcma => {
            let cut: Vec<_> = g711::split(&frame).iter().map(packetise).collect();
            let payloads: Vec<&[u8]> = cut.iter().flat_map(PacketisedFrame::payloads).collect();
            assert!(payloads.iter().all(|payload| payload.len() <= MAX_PAYLOAD));
            assert_eq!(payloads.concat(), units.concat());
        }
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::Opus => {
            assert!(cut.payloads().all(|payload| payload.len() <= MAX_CUT_PAYLOAD));
            assert!(cut.payloads().eq(units.iter().map(|unit| &unit[..])));
        }
    }
}

fn joined<E: std::fmt::Debug>(
    cut: &PacketisedFrame,
    mut handle: impl FnMut(&[u8]) -> Result<Vec<Bytes>, E>,
) -> Vec<Bytes> {
    let payloads = cut.payloads().inspect(|payload| assert!(payload.len() <= MAX_PAYLOAD));
    payloads.flat_map(|payload| handle(payload).expect("it is our own payload")).collect()
}
