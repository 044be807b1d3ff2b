//! RTP of real encoders through the depacketiser: what publishers of VP8 and VP9 send.
//!
//! `tests/data/*.rfc4571` are 20 pictures of GStreamer's `videotestsrc pattern=ball` at 96x64, each
//! packet behind its length in two bytes (RFC 4571), made with
//! `gst-launch-1.0 videotestsrc num-buffers=20 pattern=ball !
//! video/x-raw,format=I420,width=96,height=64,framerate=15/1 ! ENCODER ! PAYLOADER mtu=200
//! picture-id-mode=2 ! rtpstreampay ! filesink location=FILE` and, one a file:
//!
//! - `vp8`: `vp8enc deadline=1 keyframe-max-dist=8 target-bitrate=60000 token-partitions=1`, `rtpvp8pay`
//! - `vp9`: `vp9enc deadline=1 keyframe-max-dist=8 target-bitrate=60000 lag-in-frames=0`, `rtpvp9pay`

use bytes::Bytes;
use media::depacketise::{Assembled, DepacketiseError, Depacketiser, Packet};
use media::packetise::packetise;
use media::{Codec, Frame, NtpTime, PictureSize};

const VP8: &[u8] = include_bytes!("data/vp8.rfc4571");
const VP9: &[u8] = include_bytes!("data/vp9.rfc4571");

#[test]
fn whole_streams_come_out_as_they_were_cut() {
    for (codec, stream) in [(Codec::Vp8, VP8), (Codec::Vp9, VP9)] {
        let packets = packets(stream);
        let frames = frames(codec, &packets);
        let keyframes: Vec<_> = (0..20).filter(|index| frames[*index].keyframe).collect();
        assert_eq!((frames.len(), keyframes), (20, vec![0, 8, 16]), "{codec:?}");
        let size = PictureSize { width: 96, height: 64 };
        assert!(frames.iter().all(|frame| frame.size == Some(size) && !frame.reordered));
        assert!(frames.iter().any(|frame| frame.units.len() > 1), "{codec:?}: several packets");
        let sent = frames.iter().flat_map(|frame| through_egress(codec, frame));
        assert!(sent.eq(packets.iter().map(|packet| packet.payload.to_vec())), "{codec:?}");
    }
}

#[test]
fn picture_ids_of_seven_bits_leave_in_fifteen_and_go_on_where_they_wrap() {
    // Where the id stands: behind the flags, and in VP8 behind those of its extension.
    for (codec, stream, at) in [(Codec::Vp8, VP8, 2), (Codec::Vp9, VP9, 1)] {
        let packets = packets(stream);
        let number = |payload: &[u8]| u16::from_be_bytes([payload[at], payload[at + 1]]) & 0x7fff;
        let first = number(&packets[0].payload);
        let with_id = |payload: &[u8], id: &[u8]| {
            Bytes::from([&payload[..at], id, &payload[at + 2..]].concat())
        };
        // Picture 0 is number 120, picture 8 number 128, which is 0 in 7 bits.
        let counted = |payload: &[u8]| number(payload).wrapping_sub(first) + 120;
        let short = packets.iter().map(|packet| {
            let id = [counted(&packet.payload) as u8 & 0x7f];
            Packet { payload: with_id(&packet.payload, &id), ..packet.clone() }
        });
        let frames = frames(codec, &short.collect::<Vec<_>>());

        let long = packets.iter().map(|packet| {
            let id = counted(&packet.payload) | 0x8000;
            with_id(&packet.payload, &id.to_be_bytes())
        });
        let sent = frames.iter().flat_map(|frame| through_egress(codec, frame));
        assert!(sent.eq(long), "{codec:?}");
    }
}

#[test]
fn an_end_that_nobody_marked_shows_with_the_next_timestamp() {
    for (codec, stream) in [(Codec::Vp8, VP8), (Codec::Vp9, VP9)] {
        let marked = packets(stream);
        let unmarked: Vec<_> =
            marked.iter().map(|packet| Packet { marker: false, ..packet.clone() }).collect();
        assert_eq!(frames(codec, &unmarked), frames(codec, &marked)[..19], "{codec:?}");
    }
}

#[test]
fn a_picture_that_misses_a_packet_never_comes_out() {
    for (codec, stream) in [(Codec::Vp8, VP8), (Codec::Vp9, VP9)] {
        let packets = packets(stream);
        let whole = frames(codec, &packets);
        for lost in 0..packets.len() {
            let mut depacketiser = Depacketiser::new(codec);
            let mut came = Vec::new();
            for (index, packet) in packets.iter().enumerate().filter(|(index, _)| *index != lost) {
                if index == lost + 1 {
                    depacketiser.handle_gap();
                }
                came.extend(depacketiser.handle_packet(packet.clone()).unwrap_or_default());
            }
            let expected: Vec<_> = whole
                .iter()
                .filter(|frame| frame.timestamp != packets[lost].timestamp)
                .map(|frame| frame.timestamp)
                .collect();
            let came: Vec<_> = came.iter().map(|frame| frame.timestamp).collect();
            assert_eq!(came, expected, "{codec:?} without packet {lost}");
        }
    }
}

#[test]
fn what_cannot_be_forwarded_is_refused() {
    let payload = Bytes::from([&[0x10, 1][..], &[7; 1389]].concat());
    let packet = |payload| Packet { timestamp: 5, marker: true, payload };
    let mut depacketiser = Depacketiser::new(Codec::Vp8);
    let refused = depacketiser.handle_packet(packet(payload.clone()));
    assert_eq!(refused, Err(DepacketiseError::PayloadSize { bytes: 1391 }));
    assert_eq!(depacketiser.handle_packet(packet(payload.slice(..9))), Ok(vec![]), "it is broken");

    let mut depacketiser = Depacketiser::new(Codec::Vp8);
    let frames = depacketiser.handle_packet(packet(payload.slice(..1390))).unwrap();
    assert_eq!(through_egress(Codec::Vp8, &frames[0]), [payload.slice(..1390)]);

    // One with a picture id of 7 bits is forwarded with a byte more.
    let payload = Bytes::from([&[0x90, 0x80, 5, 1][..], &[7; 1386]].concat());
    let refused = Depacketiser::new(Codec::Vp8).handle_packet(packet(payload.clone()));
    assert_eq!(refused, Err(DepacketiseError::PayloadSize { bytes: 1391 }));
    let fits = Depacketiser::new(Codec::Vp8).handle_packet(packet(payload.slice(..1389))).unwrap();
    assert_eq!(through_egress(Codec::Vp8, &fits[0])[0].len(), 1390);
}

#[test]
fn sound_is_one_packet_one_frame() {
    for codec in [Codec::Opus, Codec::Pcmu, Codec::Pcma] {
        let mut depacketiser = Depacketiser::new(codec);
        let payload = Bytes::from_static(&[1, 2, 3]);
        let packet = Packet { timestamp: 960, marker: false, payload: payload.clone() };
        let sound = depacketiser.handle_packet(packet).unwrap().remove(0);
        assert!(sound.keyframe && sound.units == [payload] && sound.timestamp == 960);
        let empty = Packet { timestamp: 1920, marker: false, payload: Bytes::new() };
        assert_eq!(
            depacketiser.handle_packet(empty),
            Err(DepacketiseError::Malformed { codec, bytes: 0 })
        );
    }
}

/// Without extensions and padding, which GStreamer does not send.
fn packets(mut stream: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    while let Some((length, rest)) = stream.split_first_chunk::<2>() {
        let (packet, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
        assert_eq!(packet[0], 0x80);
        packets.push(Packet {
            timestamp: u32::from_be_bytes(packet[4..8].try_into().unwrap()),
            marker: packet[1] & 0x80 != 0,
            payload: Bytes::copy_from_slice(&packet[12..]),
        });
        stream = rest;
    }
    packets
}

fn frames(codec: Codec, packets: &[Packet]) -> Vec<Assembled> {
    let mut depacketiser = Depacketiser::new(codec);
    let handled = packets.iter().map(|packet| depacketiser.handle_packet(packet.clone()).unwrap());
    handled.flatten().collect()
}

fn through_egress(codec: Codec, frame: &Assembled) -> Vec<Vec<u8>> {
    let cut = packetise(&Frame {
        forwarded: None,
        codec,
        ticks: 0,
        captured: NtpTime(0),
        keyframe: frame.keyframe,
        discontinuity: false,
        units: frame.units.clone(),
    });
    cut.payloads().map(<[u8]>::to_vec).collect()
}
