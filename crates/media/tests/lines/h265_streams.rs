//! Whole streams of x265 through splitting, normalising, packetising and back.
//!
//! The streams in `data` are 20 pictures of ffmpeg's `testsrc` at 96x64, made with
//! `ffmpeg -f lavfi -i testsrc=size=96x64:rate=15 -frames:v 20 -pix_fmt yuv420p -c:v libx265
//! -preset ultrafast -x265-params aud=1:scenecut=0:info=0:` and, one a file:
//!
//! - `low-delay`: `keyint=8:min-keyint=8:bframes=0:slices=2:open-gop=0`
//! - `b-frames`: `keyint=10:min-keyint=10:bframes=2:b-adapt=0:open-gop=0`
//! - `open-gop`: `keyint=6:min-keyint=6:bframes=1:b-adapt=0:open-gop=1`
//! - `cra-in-order`: `keyint=6:min-keyint=6:bframes=0:open-gop=1`

use bytes::Bytes;
use media::depacketise::{Assembled, Depacketiser, Packet};
use media::h264::split_annex_b;
use media::h265::{AccessUnit, NalType, Normaliser};
use media::packetise::packetise;
use media::{Codec, Frame, NtpTime};

#[test]
fn pictures_in_order_pass() {
    let units = normalise(include_bytes!("data/low-delay.h265"));
    assert_eq!(keyframes(&units), [0, 8, 16]);
    assert!(units.iter().all(|unit| !unit.reordered));
}

#[test]
fn b_frames_are_seen() {
    let units = normalise(include_bytes!("data/b-frames.h265"));
    assert_eq!(keyframes(&units), [0, 10]);
    assert!(units.iter().filter(|unit| unit.reordered).count() >= 8);
    assert!(!units[1].reordered, "what is sent ahead is not what comes late");
}

#[test]
fn what_leads_the_keyframe_of_an_open_group_is_seen() {
    let units = normalise(include_bytes!("data/open-gop.h265"));
    let keyframes = keyframes(&units);
    assert!(keyframes.len() >= 4, "{keyframes:?}");
    for keyframe in &keyframes[1..] {
        assert!(units[keyframe + 1].reordered, "the picture behind {keyframe} leads it");
    }
}

#[test]
fn an_open_group_without_leading_pictures_passes() {
    let units = normalise(include_bytes!("data/cra-in-order.h265"));
    assert_eq!(keyframes(&units), [0, 6, 12, 18]);
    assert!(units.iter().all(|unit| !unit.reordered));
}

#[test]
fn keyframes_carry_their_parameter_sets_and_all_survives_the_payloads() {
    let units = normalise(include_bytes!("data/low-delay.h265"));
    for unit in &units {
        let kinds: Vec<_> = unit.units.iter().filter_map(|nal| NalType::of(nal)).collect();
        if unit.keyframe {
            let expected = [NalType::Vps, NalType::Sps, NalType::Pps, NalType::Idr, NalType::Idr];
            assert_eq!(kinds, expected);
        } else {
            assert_eq!(kinds, [NalType::Trailing; 2]);
        }
    }
    let mut depacketiser = Depacketiser::new(Codec::H265);
    for (timestamp, unit) in (0..).zip(&units) {
        let back = through_payloads(&mut depacketiser, unit, timestamp);
        assert_eq!((back.keyframe, back.timestamp), (unit.keyframe, timestamp));
        assert_eq!(back.units, unit.units);
        assert_eq!(back.size.map(|size| (size.width, size.height)), Some((96, 64)));
    }
}

fn normalise(stream: &'static [u8]) -> Vec<AccessUnit> {
    let mut normaliser = Normaliser::default();
    let units = access_units(stream)
        .into_iter()
        .filter_map(|nals| normaliser.handle_access_unit(nals).expect("the stream is whole"))
        .collect::<Vec<_>>();
    let format = normaliser.format().expect("the stream is whole");
    assert_eq!((units.len(), format.width, format.height), (20, 96, 64));
    units
}

/// Cuts a stream at its access unit delimiters.
fn access_units(stream: &'static [u8]) -> Vec<Vec<Bytes>> {
    let mut units: Vec<Vec<Bytes>> = Vec::new();
    for nal in split_annex_b(&Bytes::from_static(stream)) {
        if nal[0] >> 1 & 0x3f == 35 {
            units.push(Vec::new());
        }
        units.last_mut().expect("the stream is whole").push(nal);
    }
    units
}

fn keyframes(units: &[AccessUnit]) -> Vec<usize> {
    units.iter().enumerate().filter(|(_, unit)| unit.keyframe).map(|(index, _)| index).collect()
}

fn through_payloads(
    depacketiser: &mut Depacketiser,
    unit: &AccessUnit,
    timestamp: u32,
) -> Assembled {
    let cut = packetise(&Frame {
        forwarded: None,
        codec: Codec::H265,
        ticks: 0,
        captured: NtpTime(0),
        keyframe: unit.keyframe,
        discontinuity: false,
        units: unit.units.clone(),
    });
    let last = cut.packet_count() - 1;
    let mut frames = Vec::new();
    for (index, payload) in cut.payloads().enumerate() {
        let payload = Bytes::copy_from_slice(payload);
        let packet = Packet { timestamp, marker: index == last, payload };
        frames.extend(depacketiser.handle_packet(packet).expect("the stream is whole"));
    }
    assert_eq!(frames.len(), 1);
    frames.remove(0)
}
