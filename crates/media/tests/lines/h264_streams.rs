//! Whole streams of x264 through splitting, normalising, packetising and back.
//!
//! The streams in `data` are 20 pictures of ffmpeg's `testsrc` at 64x48, made with
//! `ffmpeg -f lavfi -i testsrc=size=64x48:rate=15 -frames:v 20 -pix_fmt yuv420p -c:v libx264
//! -preset fast` and, one a file:
//!
//! - `high-no-b-frames`: `-profile:v high -bf 0 -x264-params aud=1:keyint=8:slices=2:scenecut=0`
//! - `b-frames`: `-profile:v main -x264-params aud=1:keyint=10:bframes=2:b-adapt=0:scenecut=0`
//! - `open-gop`: `-profile:v main -x264-params
//!   aud=1:keyint=6:bframes=1:b-adapt=0:open-gop=1:scenecut=0`
//! - `intra-refresh`: `-profile:v baseline -x264-params
//!   aud=1:keyint=8:intra-refresh=1:scenecut=0`

use bytes::Bytes;
use media::h264::{AccessUnit, Depacketiser, NalType, Normaliser, split_annex_b};
use media::packetise::packetise;
use media::{Codec, Frame, NtpTime};

#[test]
fn high_profile_without_b_frames_passes() {
    let units = normalise(include_bytes!("data/high-no-b-frames.h264"));
    assert_eq!(keyframes(&units), [0, 8, 16]);
    assert!(units.iter().all(|unit| !unit.reordered));
}

#[test]
fn b_frames_are_seen() {
    let units = normalise(include_bytes!("data/b-frames.h264"));
    assert_eq!(keyframes(&units), [0, 10]);
    assert_eq!(units.iter().filter(|unit| unit.reordered).count(), 12);
}

#[test]
fn an_open_group_starts_at_its_recovery_point() {
    let units = normalise(include_bytes!("data/open-gop.h264"));
    assert_eq!(keyframes(&units), [0, 5, 11, 17]);
    assert!(units.iter().any(|unit| unit.reordered));
}

#[test]
fn intra_refresh_has_one_keyframe() {
    let units = normalise(include_bytes!("data/intra-refresh.h264"));
    assert_eq!(keyframes(&units), [0]);
    assert!(units.iter().all(|unit| !unit.reordered));
}

#[test]
fn keyframes_carry_their_parameter_sets_and_all_survives_the_payloads() {
    for unit in normalise(include_bytes!("data/high-no-b-frames.h264")) {
        let kinds: Vec<_> = unit.units.iter().filter_map(|nal| NalType::of(nal)).collect();
        if unit.keyframe {
            assert_eq!(kinds[..3], [NalType::Sps, NalType::Pps, NalType::IdrSlice]);
        } else {
            assert!(kinds.iter().all(|kind| *kind == NalType::Slice), "{kinds:?}");
        }
        assert_eq!(through_payloads(&unit), unit.units);
    }
}

fn normalise(stream: &'static [u8]) -> Vec<AccessUnit> {
    let mut normaliser = Normaliser::default();
    let units = access_units(stream)
        .into_iter()
        .filter_map(|nals| normaliser.handle_access_unit(nals).expect("the stream is whole"))
        .collect::<Vec<_>>();
    let format = normaliser.format().expect("the stream is whole");
    assert_eq!((units.len(), format.width, format.height), (20, 64, 48));
    units
}

/// Cuts a stream at its access unit delimiters.
fn access_units(stream: &'static [u8]) -> Vec<Vec<Bytes>> {
    let mut units: Vec<Vec<Bytes>> = Vec::new();
    for nal in split_annex_b(&Bytes::from_static(stream)) {
        if nal[0] & 0x1f == 9 {
            units.push(Vec::new());
        }
        units.last_mut().expect("the stream is whole").push(nal);
    }
    units
}

fn keyframes(units: &[AccessUnit]) -> Vec<usize> {
    units.iter().enumerate().filter(|(_, unit)| unit.keyframe).map(|(index, _)| index).collect()
}

fn through_payloads(unit: &AccessUnit) -> Vec<Bytes> {
    let cut = packetise(&Frame {
        forwarded: None,
        codec: Codec::H264,
        ticks: 0,
        captured: NtpTime(0),
        keyframe: unit.keyframe,
        discontinuity: false,
        units: unit.units.clone(),
    });
    let mut depacketiser = Depacketiser::default();
    let nals = cut
        .payloads()
        .flat_map(|payload| depacketiser.handle_payload(payload).expect("the stream is whole"))
        .collect();
    depacketiser.handle_end_of_frame().expect("the stream is whole");
    nals
}
